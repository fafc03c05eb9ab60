/** Shows how long the token is still valid. */

import {duration} from "./words.js";

const SHOWN = 300; // seconds before the end from which the page shows the remaining time
const SAID = [300, 60, 10]; // seconds before the end at which screen readers announce it
const SOON = 60; // seconds before the end from which the page emphasises it

/**
 * Return what the page shows and announces of the remaining time. Pure.
 *
 * @param {number} left - remaining seconds.
 * @param {number} before - remaining seconds at the previous call, Infinity at first.
 * @returns {{shown: string, said: string, soon: boolean}} texts to show and announce, "" for none; and whether to
 *     emphasise it.
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

    /** @param {number | null} seconds - seconds until the token expires; null if it does not. */
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
            // setTimeout has a largest value, and the user may set the clock.
            const wait = left > SHOWN ? Math.min(left - SHOWN, 3600) : 1;
            this._timer = setTimeout(() => this._tick(), wait * 1000);
        }
    }
}
