/* Opens WebSocket sessions through a proxy and measures one thing.
 *
 *   down   counts received frames
 *   up     sends frames of SIZE bytes as fast as the peer takes them
 *   echo   sends SIZE bytes in every session, waits for the echo, sends again; times every round trip
 *   open   opens a session and closes it: TCP, upgrade, 101, Close both ways, end of TCP; times every session
 *   keys   sends SIZE bytes in one session, waits for the echo, sends again after 10 ms; times every round trip
 *   enter  opens a session, sends SIZE bytes and waits for the echo; times all of this; repeats after 50 ms
 *   hold   opens sessions and answers pings, until it gets input on standard input
 *
 * Usage: load down|up|echo|open|keys|enter|hold HOST PORT plain|tls PATH SESSIONS SIZE WARMUP SECONDS
 * If PATH is "@FILE", each session takes the next line of FILE as its path. It prints "begin" after the warm-up, and in JSON what it measured in the next SECONDS. "hold" prints "begin" when all
 * sessions are open. It masks frames before the start. It ends by itself, whatever the peer does. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <time.h>

#include "wire.h"

enum { BUFFER_SIZE = 256 * 1024, SMALL_BUFFER = 4096, MAX_FAILURES = 50, GRACE = 30, HANDSHAKE_SECONDS = 10 };

static const uint8_t mask[4] = {0x5a, 0xc3, 0x17, 0x8e};

static struct {
    struct sockaddr_in address;
    const char *host;
    char **paths;
    int port, sessions, path_count;
    size_t size;
    double warmup, seconds;
    SSL_CTX *tls;
} options;

static atomic_ullong bytes, messages;       /* payload, in data frames */
static atomic_ullong odd;                   /* data frames of another size than SIZE */
static atomic_uint sessions_begun;
static atomic_int failures;
static atomic_bool recording, stopping;

struct session {
    struct link link;
    uint8_t *buffer;
    size_t capacity, held;
    uint64_t skip;    /* remaining payload bytes of the current frame */
    size_t echoed;    /* received bytes of the current echo */
    uint64_t sent_at; /* when its message was sent, ns */
};

/* Times, in nanoseconds. */
struct samples {
    uint64_t *times;
    size_t count, capacity;
};

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void pause_for(double seconds) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&time, &time) && errno == EINTR)
        ;
}

static void record(struct samples *samples, uint64_t time) {
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity ? samples->capacity * 2 : 65536;
        samples->times = realloc(samples->times, samples->capacity * sizeof *samples->times);
        if (samples->times == NULL)
            die("out of memory");
    }
    samples->times[samples->count++] = time;
}

/* --- Sessions --- */

static bool write_all(struct session *s, const void *data, size_t size) {
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t sent = link_write(&s->link, at, size);
        if (sent <= 0)
            return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

static void set_timeout(int fd, int seconds) {
    struct timeval timeout = {.tv_sec = seconds};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

/* Read until the 101 is complete. Later bytes stay in the buffer. */
static bool read_101(struct session *s) {
    for (;;) {
        s->buffer[s->held] = '\0';
        char *end = strstr((char *)s->buffer, "\r\n\r\n");
        if (end != NULL) {
            bool accepted = strncmp((char *)s->buffer, "HTTP/1.1 101", 12) == 0;
            if (!accepted)
                fprintf(stderr, "load: refused: %.200s\n", (char *)s->buffer);
            size_t length = (size_t)(end - (char *)s->buffer) + 4;
            s->held -= length;
            memmove(s->buffer, end + 4, s->held);
            return accepted;
        }
        if (s->held == s->capacity)
            return false;
        ssize_t received = link_read(&s->link, s->buffer + s->held, s->capacity - s->held);
        if (received <= 0)
            return false;
        s->held += (size_t)received;
    }
}

static void close_session(struct session *s) {
    link_close(&s->link);
    free(s->buffer);
    s->buffer = NULL;
}

static bool open_session(struct session *s, size_t capacity) {
    char request[12288];
    int on = 1;
    *s = (struct session){.capacity = capacity, .buffer = allocate(capacity + 1)};
    s->link.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_timeout(s->link.fd, HANDSHAKE_SECONDS);
    setsockopt(s->link.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    bool connected = connect(s->link.fd, (struct sockaddr *)&options.address, sizeof options.address) == 0;
    if (connected && options.tls) {
        s->link.ssl = SSL_new(options.tls);
        SSL_set_fd(s->link.ssl, s->link.fd);
        connected = SSL_connect(s->link.ssl) == 1;
    }
    const char *path = options.paths[atomic_fetch_add(&sessions_begun, 1) % (unsigned)options.path_count];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                          path, options.host, options.port);
    if (connected && write_all(s, request, (size_t)length) && read_101(s))
        return true;
    close_session(s);
    return false;
}

static struct session *open_sessions(size_t capacity) {
    struct session *sessions = allocate((size_t)options.sessions * sizeof *sessions);
    for (int i = 0; i < options.sessions; i++)
        if (!open_session(&sessions[i], capacity))
            die("load: session %d cannot be opened", i + 1);
    return sessions;
}

static void pong(struct session *s, const uint8_t *payload, size_t size) {
    uint8_t frame[CONTROL_MAX + HEADER_MAX];
    write_all(s, frame, put_frame(frame, OP_PONG, payload, size, mask));
}

static void check_echo(struct session *s, const uint8_t *payload, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (payload[i] != (uint8_t)((s->echoed + i) * 31 + (s->echoed + i) / 256))
            die("load: an echo differs from its message");
    s->echoed += size;
}

/* Walk over the received bytes and count them. Answers pings, and reads payload only for an echo. Returns false after a
 * Close. */
static bool walk(struct session *s, bool echo) {
    uint64_t data = 0, frames = 0, strange = 0;
    size_t used = 0;
    bool closed = false;
    while (!closed) {
        size_t skipped = s->skip < s->held - used ? s->skip : s->held - used;
        if (echo && skipped)
            check_echo(s, s->buffer + used, skipped);
        s->skip -= skipped;
        used += skipped;
        data += skipped;
        struct header header;
        size_t length = parse_header(s->buffer + used, s->held - used, &header);
        if (length == 0)
            break;
        if (header.opcode < OP_CLOSE) {
            used += length;
            s->skip = header.size;
            frames++;
            strange += header.size != options.size;
            continue;
        }
        if (s->held - used < length + header.size)
            break;
        if (header.opcode == OP_PING)
            pong(s, s->buffer + used + length, header.size);
        closed = header.opcode == OP_CLOSE;
        used += length + header.size;
    }
    s->held -= used;
    memmove(s->buffer, s->buffer + used, s->held);
    atomic_fetch_add_explicit(&bytes, data, memory_order_relaxed);
    atomic_fetch_add_explicit(&messages, frames, memory_order_relaxed);
    atomic_fetch_add_explicit(&odd, strange, memory_order_relaxed);
    return !closed;
}

/* Receive bytes and walk over them. Returns false at the end of the session. */
static bool receive(struct session *s, bool echo) {
    ssize_t received = link_read(&s->link, s->buffer + s->held, s->capacity - s->held);
    if (received <= 0)
        return false;
    s->held += (size_t)received;
    return walk(s, echo);
}

/* --- Measures: each run_... is the body of a thread --- */

static void *run_down(void *argument) {
    struct session *s = argument;
    set_timeout(s->link.fd, 0);
    bool open = walk(s, false);
    while (open)
        open = receive(s, false);
    atomic_fetch_add(&failures, 1);
    return NULL;
}

static void *run_up(void *argument) {
    struct session *s = argument;
    struct block block = make_block(options.size, mask);
    size_t offset = 0;
    set_timeout(s->link.fd, 0);
    for (;;) {
        ssize_t sent = link_write(&s->link, block.data + offset, block.size - offset);
        if (sent <= 0)
            break;
        uint64_t before = offset / block.frame;
        offset += (size_t)sent;
        uint64_t frames = offset / block.frame - before;
        offset %= block.size;
        atomic_fetch_add_explicit(&messages, frames, memory_order_relaxed);
        atomic_fetch_add_explicit(&bytes, frames * options.size, memory_order_relaxed);
    }
    atomic_fetch_add(&failures, 1);
    return NULL;
}

static bool send_echo(struct session *s, const struct block *block) {
    s->echoed = 0;
    s->sent_at = now();
    return write_all(s, block->data, block->frame);
}

/* A session is readable: receive bytes, and when the echo is complete, send the next message. */
static bool take_echo(struct session *s, const struct block *block, struct samples *samples) {
    if (!receive(s, true))
        return false;
    if (s->echoed < options.size)
        return true;
    if (atomic_load_explicit(&recording, memory_order_relaxed))
        record(samples, now() - s->sent_at);
    return send_echo(s, block);
}

struct echo_task {
    struct session *sessions;
    struct samples samples;
};

static int make_poller(struct session *sessions) {
    int poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < options.sessions; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &sessions[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, sessions[i].link.fd, &event);
    }
    return poller;
}

static void *run_echo(void *argument) {
    struct echo_task *task = argument;
    struct block block = make_block(options.size, mask);
    struct epoll_event events[256];
    int poller = make_poller(task->sessions);
    for (int i = 0; i < options.sessions; i++)
        if (!send_echo(&task->sessions[i], &block))
            atomic_fetch_add(&failures, 1);
    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        int count = epoll_wait(poller, events, 256, 50);
        for (int i = 0; i < count; i++) {
            struct session *s = events[i].data.ptr;
            if (!take_echo(s, &block, &task->samples)) {
                atomic_fetch_add(&failures, 1);
                epoll_ctl(poller, EPOLL_CTL_DEL, s->link.fd, NULL);
            }
        }
    }
    return NULL;
}

/* Open a session and close it. Returns whether every step succeeded. */
static bool open_and_close(void) {
    static const uint8_t normal[2] = {1000 >> 8, 1000 & 0xff};
    uint8_t frame[HEADER_MAX + 2];
    struct session s;
    if (!open_session(&s, SMALL_BUFFER))
        return false;
    bool well = write_all(&s, frame, put_frame(frame, OP_CLOSE, normal, 2, mask));
    bool open = well && walk(&s, false);
    while (open && (open = receive(&s, false)))
        ;
    /* RFC 6455 section 7.1.1: the server ends TCP first. */
    ssize_t rest = LINK_BROKEN;
    while (well && (rest = link_read(&s.link, s.buffer, s.capacity)) > 0)
        ;
    close_session(&s);
    return well && (rest == LINK_END || options.tls);
}

static void *run_open(void *argument) {
    struct samples *samples = argument;
    while (!atomic_load(&stopping) && atomic_load(&failures) < MAX_FAILURES) {
        uint64_t start = now();
        if (!open_and_close())
            atomic_fetch_add(&failures, 1);
        else if (atomic_load(&recording))
            record(samples, now() - start);
    }
    return NULL;
}

/* Send SIZE bytes, and wait for their echo. */
static bool echo_once(struct session *s, const struct block *block) {
    if (!send_echo(s, block))
        return false;
    while (s->echoed < options.size)
        if (!receive(s, true))
            return false;
    return true;
}

static void *run_keys(void *argument) {
    struct echo_task *task = argument;
    struct block block = make_block(options.size, mask);
    while (!atomic_load(&stopping) && atomic_load(&failures) < MAX_FAILURES) {
        if (!echo_once(task->sessions, &block))
            atomic_fetch_add(&failures, 1);
        else if (atomic_load(&recording))
            record(&task->samples, now() - task->sessions->sent_at);
        pause_for(0.01);
    }
    return NULL;
}

static void *run_enter(void *argument) {
    struct samples *samples = argument;
    struct block block = make_block(options.size, mask);
    struct session s;
    while (!atomic_load(&stopping) && atomic_load(&failures) < MAX_FAILURES) {
        uint64_t start = now();
        bool open = open_session(&s, SMALL_BUFFER);
        if (!open || !echo_once(&s, &block))
            atomic_fetch_add(&failures, 1);
        else if (atomic_load(&recording))
            record(samples, now() - start);
        if (open)
            close_session(&s);
        pause_for(0.05);
    }
    return NULL;
}

/* --- The run --- */

static void begin(void) {
    puts("begin");
    fflush(stdout);
}

static pthread_t start(void *(*body)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, argument))
        die("load: cannot start a thread");
    return thread;
}

/* Sleep through the warm-up and the measured time, and return the length of the latter. */
static double let_run(unsigned long long *data, unsigned long long *frames) {
    pause_for(options.warmup);
    unsigned long long data_before = atomic_load(&bytes), frames_before = atomic_load(&messages);
    uint64_t started = now();
    atomic_store(&recording, true);
    begin();
    pause_for(options.seconds);
    atomic_store(&recording, false);
    uint64_t ended = now();
    *data = atomic_load(&bytes) - data_before;
    *frames = atomic_load(&messages) - frames_before;
    return (double)(ended - started) / 1e9;
}

static void measure_bulk(void *(*body)(void *)) {
    struct session *sessions = open_sessions(BUFFER_SIZE);
    unsigned long long data, frames;
    for (int i = 0; i < options.sessions; i++)
        start(body, &sessions[i]);
    double elapsed = let_run(&data, &frames);
    printf("{\"seconds\": %.6f, \"bytes\": %llu, \"messages\": %llu, \"odd\": %llu, \"failures\": %d}\n", elapsed, data,
           frames, atomic_load(&odd), atomic_load(&failures));
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(double elapsed, struct samples *samples) {
    qsort(samples->times, samples->count, sizeof *samples->times, compare);
    printf("{\"seconds\": %.6f, \"count\": %zu, \"failures\": %d", elapsed, samples->count, atomic_load(&failures));
    if (samples->count)
        printf(", \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f",
               (double)samples->times[samples->count / 2] / 1e3,
               (double)samples->times[samples->count - 1 - samples->count / 100] / 1e3,
               (double)samples->times[samples->count - 1] / 1e3);
    puts("}");
}

static void measure_echo(void *(*body)(void *)) {
    struct echo_task task = {.sessions = open_sessions(SMALL_BUFFER)};
    unsigned long long data, frames;
    pthread_t thread = start(body, &task);
    double elapsed = let_run(&data, &frames);
    atomic_store(&stopping, true);
    pthread_join(thread, NULL);
    print_times(elapsed, &task.samples);
}

static void measure_open(void *(*body)(void *)) {
    struct samples *samples = allocate((size_t)options.sessions * sizeof *samples), all = {0};
    pthread_t *threads = allocate((size_t)options.sessions * sizeof *threads);
    unsigned long long data, frames;
    for (int i = 0; i < options.sessions; i++)
        threads[i] = start(body, &samples[i]);
    double elapsed = let_run(&data, &frames);
    atomic_store(&stopping, true);
    for (int i = 0; i < options.sessions; i++) {
        pthread_join(threads[i], NULL);
        for (size_t j = 0; j < samples[i].count; j++)
            record(&all, samples[i].times[j]);
    }
    print_times(elapsed, &all);
}

/* Receive what has come to sessions, and wait for that as long as TIMEOUT (ms) says. Returns false at the end of standard
 * input, or after input there. */
static bool serve_held(int poller, int timeout) {
    struct epoll_event events[256];
    int count = epoll_wait(poller, events, 256, timeout);
    bool goes_on = true;
    for (int i = 0; i < count; i++) {
        struct session *s = events[i].data.ptr;
        if (s == NULL) {
            goes_on = false;
        } else if (!receive(s, false)) {
            atomic_fetch_add(&failures, 1);
            epoll_ctl(poller, EPOLL_CTL_DEL, s->link.fd, NULL);
        }
    }
    return goes_on;
}

static void hold(void) {
    struct session *sessions = allocate((size_t)options.sessions * sizeof *sessions);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    int poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < options.sessions; i++) {
        if (!open_session(&sessions[i], SMALL_BUFFER))
            die("load: session %d cannot be opened", i + 1);
        event.data.ptr = &sessions[i];
        epoll_ctl(poller, EPOLL_CTL_ADD, sessions[i].link.fd, &event);
        serve_held(poller, 0); /* pings are answered meanwhile */
    }
    event.data.ptr = NULL;
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    begin();
    while (serve_held(poller, -1))
        ;
    printf("{\"failures\": %d}\n", atomic_load(&failures));
}

static void read_paths(char *path) {
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    FILE *file = path[0] == '@' ? fopen(path + 1, "r") : NULL;
    if (path[0] == '@' && file == NULL)
        die("load: %s cannot be read", path + 1);
    options.paths = allocate(sizeof *options.paths);
    options.paths[0] = path;
    options.path_count = file == NULL;
    while (file != NULL && (length = getline(&line, &size, file)) > 1) {
        line[length - 1] = '\0';
        options.paths = realloc(options.paths, (size_t)(options.path_count + 1) * sizeof *options.paths);
        if (options.paths == NULL || (options.paths[options.path_count++] = strdup(line)) == NULL)
            die("out of memory");
    }
    if (options.path_count == 0)
        die("load: %s has no path", path + 1);
}

static void read_options(char **argv) {
    options.host = argv[2];
    options.port = atoi(argv[3]);
    read_paths(argv[5]);
    options.sessions = atoi(argv[6]);
    options.size = (size_t)atol(argv[7]);
    options.warmup = atof(argv[8]);
    options.seconds = atof(argv[9]);
    options.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    if (inet_pton(AF_INET, options.host, &options.address.sin_addr) != 1 || options.sessions < 1 ||
        options.size < 1 || options.size > 65535)
        die("load: HOST must be an IPv4 address, SESSIONS at least 1, SIZE 1 to 65535");
    if (strcmp(argv[4], "tls") == 0) {
        options.tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(options.tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
}

int main(int argc, char **argv) {
    if (argc != 10)
        die("usage: load down|up|echo|open|keys|enter|hold HOST PORT plain|tls PATH SESSIONS SIZE WARMUP SECONDS");
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    read_options(argv);
    alarm((unsigned)(options.warmup + options.seconds) + GRACE);
    if (strcmp(argv[1], "down") == 0)
        measure_bulk(run_down);
    else if (strcmp(argv[1], "up") == 0)
        measure_bulk(run_up);
    else if (strcmp(argv[1], "echo") == 0)
        measure_echo(run_echo);
    else if (strcmp(argv[1], "open") == 0)
        measure_open(run_open);
    else if (strcmp(argv[1], "keys") == 0)
        measure_echo(run_keys);
    else if (strcmp(argv[1], "enter") == 0)
        measure_open(run_enter);
    else if (strcmp(argv[1], "hold") == 0)
        hold();
    else
        die("load: there is no measure %s", argv[1]);
    fflush(stdout);
    _exit(atomic_load(&failures) ? 1 : 0); /* threads may still run, and the kernel closes the sockets */
}
