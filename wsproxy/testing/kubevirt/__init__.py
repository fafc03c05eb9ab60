"""A simulated Kubernetes API with KubeVirt: its VMs, their consoles and its faults."""
