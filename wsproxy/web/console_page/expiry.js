/** How long the token is still good for. */

import {duration} from "./words.js";

const SHOWN = 300; // seconds before the end from which the rest is shown
const SAID = [300, 60, 10]; // seconds before the end at which it is also said
const SOON = 60; // seconds before the end from which nobody should miss it

/**
 * Say what to show and what to say of the time that is left. Pure.
 *
 * @param {number} left - seconds.
 * @param {number} before - what was left the last time, Infinity at first.
 * @returns {{shown: string, said: string, soon: boolean}} "" for nothing; whether it has to be seen.
 */
export function remainder(left, before) {
    const whole = Math.ceil(left);
    if (whole > SHOWN) {
        return {shown: "", said: "", soon: false};
    }
    const shown = whole > 0 ? `Access ends in ${duration(whole)}` : "Access has ended";
    const crossed = SAID.some(mark => whole <= mark && before > mark);
    return {shown, said: crossed ? shown : "", soon: whole <= SOON};
}

/** Counts down. Event: `tick`, with `shown`, `said` and `soon`. */
export class Expiry extends EventTarget {
    constructor() {
        super();
        this._end = Infinity;
        this._timer = 0;
        this._before = Infinity;
    }

    /** @param {number | null} seconds - until the token expires, null if it does not. */
    set(seconds) {
        this._end = seconds === null ? Infinity : Date.now() + seconds * 1000;
        this._tick();
    }

    _tick() {
        clearTimeout(this._timer);
        const left = (this._end - Date.now()) / 1000;
        this.dispatchEvent(new CustomEvent("tick", {detail: remainder(left, this._before)}));
        this._before = Math.ceil(left);
        if (left > 0 && left !== Infinity) {
            // Time-outs have a largest value, and the clock may be set.
            const wait = left > SHOWN ? Math.min(left - SHOWN, 3600) : 1;
            this._timer = setTimeout(() => this._tick(), wait * 1000);
        }
    }
}
