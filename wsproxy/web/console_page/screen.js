/** The screen, keyboard and mouse of a machine, with noVNC (1.3 and newer). */

import RFB from "./novnc/core/rfb.js";
import {initLogging} from "./novnc/core/util/logging.js";

initLogging("none"); // the page itself tells the user what noVNC would log

// X11 keysyms, and the code values of UI Events for these keys.
const CONTROL = [0xffe3, "ControlLeft"];
const ALT = [0xffe9, "AltLeft"];
const SHIFT = [0xffe1, "ShiftLeft"];
const SUPER = [0xffeb, "MetaLeft"];
const DELETE = [0xffff, "Delete"];
const BACKSPACE = [0xff08, "Backspace"];
const TAB = [0xff09, "Tab"];
const RETURN = [0xff0d, "Enter"];
const ESCAPE = [0xff1b, "Escape"];
const PRINT = [0xff61, "PrintScreen"];
const functionKey = number => [0xffbd + number, `F${number}`];
const numbers = Array.from({length: 12}, (_, index) => index + 1);

/** Keys that a button sends: name, label, and the keys in the order in which they are pressed. */
const KEYS = [
    ["ctrl-alt-del", "Ctrl+Alt+Del", [CONTROL, ALT, DELETE]],
    ["ctrl-alt-backspace", "Ctrl+Alt+Backspace", [CONTROL, ALT, BACKSPACE]],
    ["tab", "Tab", [TAB]],
    ["esc", "Esc", [ESCAPE]],
    ["win", "Win", [SUPER]],
    ["alt-tab", "Alt+Tab", [ALT, TAB]],
    ["alt-f4", "Alt+F4", [ALT, functionKey(4)]],
    ["print", "Print", [PRINT]],
    ...numbers.map(number => [`f${number}`, `F${number}`, [functionKey(number)]]),
    ...numbers.map(number => [`ctrl-alt-f${number}`, `Ctrl+Alt+F${number}`, [CONTROL, ALT, functionKey(number)]]),
];

const WITH_SHIFT = /[A-Z~!@#$%^&*()_+{}|:"<>?]/u; // on the American keyboard layout, which QEMU assumes
const TYPING_INTERVAL = 20; // milliseconds; a machine's keyboard buffer is small

/**
 * Shows a console that speaks RFB. Events: `ready`, `refused` (detail.reason), `clipboard` (detail.text), `bell`.
 */
export class Screen extends EventTarget {
    /**
     * @param {HTMLElement} element - the element to fill.
     * @param {WebSocket} socket - open or connecting; `dispose` closes it.
     * @param {{viewOnly: boolean, label: string, description: string}} options - `label` names the screen for
     *     screen readers, `description` is the id of the element that describes it.
     */
    constructor(element, socket, {viewOnly, label, description}) {
        super();
        this._gone = false;
        this._rfb = new RFB(element, socket, {shared: true});
        this._rfb.viewOnly = viewOnly;
        this._rfb.scaleViewport = true;
        this._rfb.showDotCursor = true;
        this._rfb.background = "";
        this._canvas = element.querySelector("canvas");
        this._canvas.tabIndex = 0;
        this._canvas.setAttribute("role", "application");
        this._canvas.setAttribute("aria-label", label);
        this._canvas.setAttribute("aria-describedby", description);
        const tell = (type, detail) => this.dispatchEvent(new CustomEvent(type, {detail}));
        this._rfb.addEventListener("connect", () => tell("ready", {}));
        this._rfb.addEventListener("securityfailure", ({detail}) => tell("refused", {reason: detail.reason ?? ""}));
        this._rfb.addEventListener("credentialsrequired", () => {
            tell("refused", {reason: "it asks for a password, which this page does not have"});
            this.dispose();
        });
        this._rfb.addEventListener("clipboard", ({detail}) => tell("clipboard", {text: detail.text}));
        this._rfb.addEventListener("bell", () => tell("bell", {}));
        this._rfb.addEventListener("disconnect", () => {
            this._gone = true;
        });
    }

    /** Whether keys, mouse and pasted text do not go to the machine. */
    get viewOnly() {
        return this._rfb.viewOnly;
    }

    set viewOnly(viewOnly) {
        this._rfb.viewOnly = viewOnly;
    }

    /** @returns {{name: string, label: string}[]} the keys that `sendKey` knows. */
    get keys() {
        return KEYS.map(([name, label]) => ({name, label}));
    }

    /** Give the console the keyboard's focus. */
    focus() {
        this._canvas.focus({preventScroll: true});
    }

    /** @param {string} name - the name of one of `keys`. */
    sendKey(name) {
        const [, , keys] = KEYS.find(([known]) => known === name);
        this._press(keys);
    }

    /** @param {string} text - text for the machine's clipboard. */
    paste(text) {
        this._rfb.clipboardPasteFrom(text);
    }

    /**
     * Type a text, for a machine that shares no clipboard. Resolves when the text is typed, or the console is over.
     *
     * @param {string} text
     */
    async type(text) {
        for (const character of text.replaceAll("\r\n", "\n")) {
            if (this._gone) {
                return;
            }
            this._press(WITH_SHIFT.test(character) ? [SHIFT, keyOf(character)] : [keyOf(character)]);
            await new Promise(resolve => setTimeout(resolve, TYPING_INTERVAL));
        }
    }

    /** End the console, and remove it from the page. Idempotent. */
    dispose() {
        if (!this._gone) {
            this._gone = true;
            this._rfb.disconnect();
        }
    }

    _press(keys) {
        keys.forEach(([keysym, code]) => this._rfb.sendKey(keysym, code, true));
        [...keys].reverse().forEach(([keysym, code]) => this._rfb.sendKey(keysym, code, false));
    }
}

/**
 * @param {string} character
 * @returns {[number, string | null]} keysym and code. If the code is null, the machine finds the key itself.
 */
function keyOf(character) {
    if (character === "\n") {
        return RETURN;
    }
    if (character === "\t") {
        return TAB;
    }
    const point = character.codePointAt(0);
    return [point < 0x100 ? point : 0x01000000 + point, null];
}
