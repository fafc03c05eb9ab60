/** The serial console of a machine, with xterm.js (6). */

import {Terminal} from "./xterm/lib/xterm.mjs";
import {withoutStyleElements} from "./strict_styles.js";

await loadStyle(new URL("xterm/css/xterm.css", import.meta.url).href);

const LARGEST_FONT = 15; // pixels
const SMALLEST_FONT = 9;
const COLUMNS = 80; // columns that a machine assumes, as a serial line has no size; the font shrinks to fit them
const SCROLLBAR = 14; // width in pixels of the scrollbar, which xterm.js draws over the text
const SCROLLBACK = 5000; // lines
const MOST_WAITING = 16 * 1024 * 1024; // bytes that xterm.js has not shown yet; beyond them messages are dropped
const MOST_OFFERED = 1024 * 1024; // Base64 characters of a text for the clipboard
const QUIET = 250; // milliseconds without a Close after which a console counts as open

const SILENT = "\x1b[3mConnected. If you see nothing, press Enter.\x1b[0m\r\n";

const LIGHT = {
    background: "#ffffff",
    foreground: "#1a1d21",
    cursor: "#0b57c2",
    cursorAccent: "#ffffff",
    selectionBackground: "#b9d4ff",
};
const DARK = {
    background: "#101214",
    foreground: "#eceff2",
    cursor: "#8ab8ff",
    cursorAccent: "#101214",
    selectionBackground: "#345380",
};

const control = letter => String.fromCharCode(letter.charCodeAt(0) & 0x1f);
const CURSOR_KEYS = {"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F"};

/** Keys that a button sends: name, label, and the bytes; null if the bytes depend on the terminal's mode. */
const KEYS = [
    ...["C", "D", "Z", "\\", "]", "A", "L", "X"].map(key => [`ctrl-${key.toLowerCase()}`, `Ctrl+${key}`, control(key)]),
    ["esc", "Esc", "\x1b"],
    ["tab", "Tab", "\t"],
    ["enter", "Enter", "\r"],
    ...Object.keys(CURSOR_KEYS).map(name => [name, name[0].toUpperCase() + name.slice(1), null]),
    ["page-up", "Page up", "\x1b[5~"],
    ["page-down", "Page down", "\x1b[6~"],
    ...["OP", "OQ", "OR", "OS", "[15~", "[17~", "[18~", "[19~", "[20~", "[21~", "[23~", "[24~"].map(
        (sequence, index) => [`f${index + 1}`, `F${index + 1}`, `\x1b${sequence}`],
    ),
];

/** Characters to remove from pasted text: they could end a bracketed paste, and act as keys (ECMA-48, C0 and C1). */
const NOT_TEXT = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/gu;

/**
 * Shows a serial console. Events: `ready`, `clipboard` (detail.text), `bell`. There is no `refused`, because the proxy
 * tells a refusal by the Close alone.
 *
 * The machine controls only the text on the screen. The page only reports text that the machine offers for the
 * clipboard, disables its links, and ignores its titles.
 */
export class Serial extends EventTarget {
    /**
     * @param {HTMLElement} element - the element to fill.
     * @param {WebSocket} socket - open or connecting; `dispose` closes it.
     * @param {{viewOnly: boolean, label: string, description: string}} options - `label` names the terminal for
     *     screen readers, `description` is the id of the element that describes it.
     */
    constructor(element, socket, {viewOnly, label, description}) {
        super();
        this._element = element;
        this._socket = socket;
        this._ending = new AbortController();
        this._waiting = 0;
        this._left = 0; // bytes that were dropped
        this._ready = false;
        this._dark = matchMedia("(prefers-color-scheme: dark)");
        this._terminal = new Terminal({
            disableStdin: viewOnly,
            fontFamily: "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace",
            fontSize: LARGEST_FONT,
            linkHandler: {activate: () => {}},
            logLevel: "off", // the page itself tells the user what xterm.js would log
            minimumContrastRatio: 4.5, // WCAG 2 AA, in both themes
            scrollback: SCROLLBACK,
        });
        this._open(label, description);
        this._listen();
    }

    /** Whether keys and pasted text do not go to the machine. */
    get viewOnly() {
        return this._terminal.options.disableStdin;
    }

    set viewOnly(viewOnly) {
        this._terminal.options.disableStdin = viewOnly;
    }

    /** Whether screen readers can read the terminal. If so, input methods that compose text may not work. */
    get screenReader() {
        return this._terminal.options.screenReaderMode;
    }

    set screenReader(screenReader) {
        this._terminal.options.screenReaderMode = screenReader;
    }

    /** @returns {{name: string, label: string}[]} the keys that `sendKey` knows. */
    get keys() {
        return KEYS.map(([name, label]) => ({name, label}));
    }

    /** Give the console the keyboard's focus. */
    focus() {
        this._terminal.focus();
    }

    /** @param {string} name - the name of one of `keys`. */
    sendKey(name) {
        const [, , sequence] = KEYS.find(([known]) => known === name);
        const {applicationCursorKeysMode: application} = this._terminal.modes;
        this._terminal.input(sequence ?? (application ? "\x1bO" : "\x1b[") + CURSOR_KEYS[name]);
    }

    /** @param {string} text - text to type; as a bracketed paste if the machine has enabled that. */
    paste(text) {
        if (!this.viewOnly) {
            this._terminal.paste(text.replace(NOT_TEXT, ""));
        }
    }

    /** End the console, and remove it from the page. Idempotent. */
    dispose() {
        if (!this._ending.signal.aborted) {
            this._ending.abort();
            this._resized.disconnect();
            this._element.style.removeProperty("background-color");
            this._terminal.dispose();
            this._socket.close();
        }
    }

    _open(label, description) {
        this._wear();
        withoutStyleElements(() => this._terminal.open(this._element));
        this._terminal.textarea.setAttribute("aria-label", label);
        this._terminal.textarea.setAttribute("aria-describedby", description);
        this._resized = new ResizeObserver(() => this._fit());
        this._resized.observe(this._element);
        this._fit();
    }

    _listen() {
        const {signal} = this._ending;
        const on = (target, type, handler, options = {}) => {
            target.addEventListener(type, handler, {...options, signal});
        };
        this._socket.binaryType = "arraybuffer";
        on(this._socket, "open", () => this._opened());
        on(this._socket, "message", ({data}) => this._receive(data));
        on(this._dark, "change", () => this._wear());
        // Capture the event before xterm.js does, which would paste control characters as well.
        on(this._element, "paste", event => this._pasted(event), {capture: true});
        this._terminal.onData(text => this._send(new TextEncoder().encode(text)));
        this._terminal.onBinary(bytes => this._send(Uint8Array.from(bytes, byte => byte.charCodeAt(0))));
        this._terminal.onBell(() => this._tell("bell", {}));
        this._terminal.parser.registerOscHandler(52, text => this._offered(text));
        if (this._socket.readyState === WebSocket.OPEN) {
            this._opened();
        }
    }

    /** Wait for a refusal, which the proxy sends right after the handshake; the machine may stay silent. */
    _opened() {
        const timer = setTimeout(() => {
            if (!this._ready) {
                this._terminal.write(SILENT);
            }
            this._becomeReady();
        }, QUIET);
        for (const [target, type] of [[this._socket, "close"], [this._ending.signal, "abort"]]) {
            target.addEventListener(type, () => clearTimeout(timer), {once: true});
        }
    }

    _becomeReady() {
        if (!this._ready) {
            this._ready = true;
            this._tell("ready", {});
        }
    }

    _tell(type, detail) {
        this.dispatchEvent(new CustomEvent(type, {detail}));
    }

    _send(bytes) {
        if (this._socket.readyState === WebSocket.OPEN) {
            this._socket.send(bytes);
        }
    }

    /** Show bytes, even parts of a character. A browser cannot slow the sender down, so the page drops the excess. */
    _receive(data) {
        this._becomeReady();
        const bytes = new Uint8Array(data);
        if (this._waiting > MOST_WAITING) {
            this._left += bytes.length;
            return;
        }
        this._waiting += bytes.length;
        this._terminal.write(bytes, () => {
            this._waiting -= bytes.length;
            if (this._waiting === 0 && this._left > 0) {
                this._terminal.write(`\r\n[${this._left} bytes were skipped: they came too fast]\r\n`);
                this._left = 0;
            }
        });
    }

    _pasted(event) {
        event.preventDefault();
        event.stopImmediatePropagation();
        this.paste(event.clipboardData.getData("text/plain"));
    }

    /** Report a text that the machine offers for the clipboard (OSC 52). Queries of the clipboard get no answer. */
    _offered(data) {
        const found = /^[a-z0-7]*;([A-Za-z0-9+/]+={0,2})$/u.exec(data);
        if (found !== null && found[1].length <= MOST_OFFERED) {
            try {
                const bytes = Uint8Array.from(atob(found[1]), byte => byte.charCodeAt(0));
                this._tell("clipboard", {text: new TextDecoder().decode(bytes)});
            } catch {
                // not valid Base64
            }
        }
        return true;
    }

    _wear() {
        const theme = this._dark.matches ? DARK : LIGHT;
        this._terminal.options.theme = theme;
        this._element.style.backgroundColor = theme.background;
    }

    /** Set as many columns and rows as fit. */
    _fit() {
        const {clientWidth: width, clientHeight: height} = this._element;
        if (width === 0 || height === 0) {
            return; // hidden
        }
        const room = width - SCROLLBAR;
        const {options} = this._terminal;
        options.fontSize = LARGEST_FONT;
        const fitting = Math.floor(LARGEST_FONT * room / (COLUMNS * this._cell().width));
        options.fontSize = Math.min(LARGEST_FONT, Math.max(SMALLEST_FONT, fitting));
        const cell = this._cell();
        this._terminal.resize(Math.max(2, Math.floor(room / cell.width)), Math.max(1, Math.floor(height / cell.height)));
    }

    /** @returns {{width: number, height: number}} the size of a character in pixels. */
    _cell() {
        const {width, height} = this._element.querySelector(".xterm-screen").getBoundingClientRect();
        return {width: width / this._terminal.cols, height: height / this._terminal.rows};
    }
}

/**
 * @param {string} url
 * @returns {Promise<void>} resolves when the style sheet has loaded.
 * @throws {Error} if it cannot be loaded.
 */
function loadStyle(url) {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = url;
    return new Promise((resolve, reject) => {
        link.addEventListener("load", () => resolve());
        link.addEventListener("error", () => {
            link.remove();
            reject(new Error("cannot load xterm.css"));
        });
        document.head.append(link);
    });
}
