/** Measures how long the proxy takes to answer. */

const INTERVAL = 10_000; // milliseconds

/**
 * Measures the round trip to the proxy while the page is visible. Event: `measured`, with `milliseconds`, or null
 * if the proxy does not answer.
 */
export class Latency extends EventTarget {
    /** @param {string} url - URL of a small resource of the proxy. */
    constructor(url) {
        super();
        this._url = url;
        this._timer = 0;
        this._measure = this._measure.bind(this);
        this._resume = this._resume.bind(this);
    }

    /** Measure now, and then every ten seconds. */
    start() {
        this.stop();
        document.addEventListener("visibilitychange", this._resume);
        this._measure();
    }

    /** Stop measuring. */
    stop() {
        document.removeEventListener("visibilitychange", this._resume);
        clearTimeout(this._timer);
        this._timer = 0;
    }

    _resume() {
        clearTimeout(this._timer);
        this._measure();
    }

    async _measure() {
        if (document.hidden) {
            return;
        }
        const timer = this._timer = setTimeout(this._measure, INTERVAL);
        const milliseconds = await roundTrip(this._url);
        if (timer === this._timer) {
            this.dispatchEvent(new CustomEvent("measured", {detail: {milliseconds}}));
        }
    }
}

/**
 * @param {string} url
 * @returns {Promise<number | null>} milliseconds from the request to the first byte of the answer, without the time
 *     to connect; null if the answer is no success.
 */
async function roundTrip(url) {
    const begun = performance.now();
    try {
        const response = await fetch(url, {cache: "no-store", redirect: "error"});
        await response.text();
        if (!response.ok) {
            return null;
        }
    } catch {
        return null;
    }
    const whole = performance.now() - begun;
    const entry = performance.getEntriesByName(url).findLast(({startTime}) => startTime >= begun);
    performance.clearResourceTimings();
    return entry === undefined ? whole : entry.responseStart - entry.requestStart;
}
