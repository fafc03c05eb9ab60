/** Opens one console, and reconnects for as long as that can help. */

import {Refusal} from "./server.js";
import {causeOf} from "./words.js";

/** Seconds until the first new attempt, by cause. For other causes the page reconnects only if the user asks. */
const FIRST_DELAY = {
    "restarting": 1,
    "draining": 1,
    "state-unavailable": 3,
    "lost": 1,
    "unreachable": 2,
    "no-websocket": 5,
    "upstream-closed": 2,
    "upstream-protocol-error": 3,
    "vmi-not-running": 3,
    "vmi-not-found": 3,
    "failed": 3,
    "upstream-refused": 3,
    "upstream-timeout": 3,
    "busy": 5,
    "limit": 5,
    "limit-user": 5,
    "limit-vmi": 5,
    "limit-address": 5,
    "limit-failures": 15,
};
/** Causes that a new attempt cannot change. */
const HOPELESS = ["bad-request", "bad-token", "token-expired", "expired", "not-found", "forbidden", "vmi-no-console"];
const LONGEST_DELAY = 30;
const SETTLED = 60; // seconds after which an open console counts as working
const CONTESTED = 2; // times in a row that the machine closes a console before it counts as contested

/**
 * How one attempt ended.
 *
 * @typedef {object} End
 * @property {number} code - the close code, or 1006.
 * @property {string} reason - the close reason.
 * @property {number | null} lasted - seconds that the console was open; null if it never was.
 */

/**
 * What the page remembers of earlier attempts.
 *
 * @typedef {object} Past
 * @property {number} failures - attempts since a console last worked.
 * @property {number} thrownOut - times in a row that the machine closed the console, all but the first before SETTLED.
 */

/**
 * What the page does next.
 *
 * @typedef {object} Plan
 * @property {string} cause - why the attempt ended; see `causeOf`.
 * @property {number | null} delay - seconds until the next attempt; null if the page waits for the user.
 * @property {boolean} mayRetry - whether the user may ask for another attempt.
 * @property {Past} past - the value for the next call.
 */

/** @type {Past} */
export const NOTHING_PAST = Object.freeze({failures: 0, thrownOut: 0});

/**
 * Decide what to do after the end of an attempt. Pure.
 *
 * After a takeover the page does not reconnect, because two pages that reconnect would disconnect each other for ever.
 * If KubeVirt decides alone, a takeover looks as if the machine closed the console. If the console then opens at once,
 * and is soon closed again, the page takes this for another client.
 *
 * @param {End} end
 * @param {Past} past
 * @param {() => number} random - returns a number between 0 and 1; it spreads the attempts of many pages.
 * @returns {Plan}
 */
export function plan(end, past, random) {
    const ready = end.lasted !== null;
    const settled = ready && end.lasted >= SETTLED;
    let cause = causeOf(end.code, end.reason, ready);
    let thrownOut = settled ? 0 : past.thrownOut;
    if (ready && cause === "upstream-closed") {
        thrownOut += 1;
        cause = thrownOut < CONTESTED ? cause : "contested";
    } else if (ready || cause === "vmi-not-running" || cause === "vmi-not-found") {
        thrownOut = 0; // the machine itself has ended, so there is no other client
    }
    const failures = settled ? 0 : past.failures;
    const first = FIRST_DELAY[cause];
    const next = {cause, mayRetry: !HOPELESS.includes(cause), past: {failures: failures + 1, thrownOut}};
    if (first === undefined) {
        return {...next, delay: null};
    }
    const delay = Math.min(LONGEST_DELAY, first * 2 ** Math.min(failures, 5));
    return {...next, delay: delay * (0.75 + 0.5 * random())};
}

/**
 * Opens a console, watches for its end, and opens it again.
 *
 * Events, each a CustomEvent: `connecting`; `ready` with `view`; `waiting` and `ended`, both with `cause`, `code`,
 * `reason` and `mayRetry`, and the first with `delay` in seconds.
 */
export class Session extends EventTarget {
    /**
     * @param {(wanted: () => boolean) => Promise<{socket: WebSocket, view: EventTarget} | null>} open - begins an
     *     attempt. It stops if `wanted` returns false. If it throws a `Refusal`, the attempt has failed; null means
     *     that there is nothing to open. The view's `ready` event says that the console is open, and its `dispose()`
     *     closes the socket.
     */
    constructor(open) {
        super();
        this._open = open;
        this._past = NOTHING_PAST;
        this._attempt = 0; // the current attempt's number; events of older attempts are ignored
        this._timer = 0;
        this._view = null;
        /** Whether a console is open, is being opened, or will be. */
        this.active = false;
    }

    /** Connect now, and end any earlier attempt. */
    async connect() {
        this.leave();
        this.active = true;
        const number = this._attempt;
        this._tell("connecting", {});
        try {
            const opened = await this._open(() => number === this._attempt);
            if (number !== this._attempt) {
                opened?.view.dispose();
            } else if (opened === null) {
                this.leave();
            } else {
                this._view = opened.view;
                this._watch(number, opened.socket, opened.view);
            }
        } catch (error) {
            if (!(error instanceof Refusal)) {
                throw error;
            }
            this._ended(number, {code: error.code, reason: error.reason, lasted: null});
        }
    }

    /** Connect because the user asks for it. Earlier failures do not count. */
    retry() {
        this._past = NOTHING_PAST;
        return this.connect();
    }

    /** End the console or the attempt, without an event. */
    leave() {
        this._attempt += 1;
        clearTimeout(this._timer);
        this._view?.dispose();
        this._view = null;
        this.active = false;
    }

    _watch(number, socket, view) {
        let since = null;
        let refused = "";
        let shaken = false; // whether the handshake succeeded; the proxy itself has just answered a request
        socket.addEventListener("open", () => {
            shaken = true;
        });
        view.addEventListener("refused", ({detail}) => {
            refused = detail.reason;
        });
        view.addEventListener("ready", () => {
            if (number === this._attempt) {
                since = performance.now();
                this._tell("ready", {view});
            }
        });
        socket.addEventListener("close", ({code, reason}) => {
            const lasted = since === null ? null : (performance.now() - since) / 1000;
            // If the machine itself refused, its reason says more than the Close that follows.
            let end = refused !== "" && code < 4000 ? {code: 1005, reason: refused} : {code, reason};
            if (code === 1006 && !shaken) {
                end = {code, reason: "no-websocket"};
            }
            this._ended(number, {...end, lasted});
        });
    }

    _ended(number, end) {
        if (number !== this._attempt) {
            return;
        }
        this.leave();
        const {cause, delay, mayRetry, past} = plan(end, this._past, Math.random);
        this._past = past;
        const detail = {cause, mayRetry, delay, code: end.code, reason: end.reason};
        if (delay === null) {
            this._tell("ended", detail);
        } else {
            this.active = true;
            this._timer = setTimeout(() => this.connect(), delay * 1000);
            this._tell("waiting", detail);
        }
    }

    _tell(type, detail) {
        this.dispatchEvent(new CustomEvent(type, {detail}));
    }
}
