/** One console, opened again for as long as that makes sense. */

import {Refusal} from "./server.js";
import {causeOf} from "./words.js";

/** Seconds that the first new attempt waits, by cause. What is not here is not tried again without being asked. */
const FIRST_DELAY = {
    "restarting": 1,
    "draining": 1,
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
/** What a new attempt cannot change. */
const HOPELESS = ["bad-request", "bad-token", "token-expired", "expired", "not-found", "forbidden", "vmi-no-console"];
const LONGEST_DELAY = 30;
const SETTLED = 60; // seconds after which a console counts as having worked
const CONTESTED = 2; // times in a row that the machine closed a console, the second one before that

/**
 * How one attempt ended.
 *
 * @typedef {object} End
 * @property {number} code - of the Close, or 1006.
 * @property {string} reason
 * @property {number | null} lasted - seconds that the console was open; null if it never was.
 */

/**
 * What is remembered of the attempts before.
 *
 * @typedef {object} Past
 * @property {number} failures - attempts since a console last worked.
 * @property {number} thrownOut - times in a row that the machine closed the console, all but the first one soon.
 */

/**
 * What comes next.
 *
 * @typedef {object} Plan
 * @property {string} cause - why it ended; see `causeOf`.
 * @property {number | null} delay - seconds until the next attempt; null if there is none unless somebody asks.
 * @property {boolean} mayRetry - whether somebody may ask for it.
 * @property {Past} past - for the next time.
 */

/** @type {Past} */
export const NOTHING_PAST = Object.freeze({failures: 0, thrownOut: 0});

/**
 * Decide what to do about the end of an attempt. Pure.
 *
 * Whoever was taken over stays out: two pages that reconnect by themselves would throw each other out for ever.
 * Where KubeVirt decides alone that looks as if the machine closed the console; but if it is there again at once,
 * and closed again soon, then it was somebody else.
 *
 * @param {End} end
 * @param {Past} past
 * @param {() => number} random - between 0 and 1, so that not all pages come at once.
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
        thrownOut = 0; // if it was the machine that ended, then nobody else has come
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
 * Opens a console, watches its end, and opens it again.
 *
 * Events, each a CustomEvent: `connecting`; `ready` with `view`; `waiting` and `ended`, both with `cause`, `code`,
 * `reason` and `mayRetry`, and the first with `delay` in seconds.
 */
export class Session extends EventTarget {
    /**
     * @param {(wanted: () => boolean) => Promise<{socket: WebSocket, view: EventTarget} | null>} open - begins an
     *     attempt, unless it is not `wanted` any more; a `Refusal` ends it, and null means that there is nothing to
     *     open. The view tells by `ready` that the console is there, and closes the socket by `dispose()`.
     */
    constructor(open) {
        super();
        this._open = open;
        this._past = NOTHING_PAST;
        this._attempt = 0; // its number; what an older one still says is not listened to
        this._timer = 0;
        this._view = null;
        /** Whether a console is open, is being opened, or will be. */
        this.active = false;
    }

    /** Connect now, whether or not there was an attempt before. */
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

    /** Connect because somebody asked for it: what went wrong before does not count. */
    retry() {
        this._past = NOTHING_PAST;
        return this.connect();
    }

    /** End all that goes on, without an event. */
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
        let shaken = false; // whether there is a WebSocket; the proxy has just answered a request in any case
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
            // A machine's own refusal says more than that somebody closed after it.
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
