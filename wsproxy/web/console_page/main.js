/** Connects the parts of the page: opens the link's console, and reacts to the user's actions. */

import {Clipboard} from "./clipboard.js";
import {Expiry} from "./expiry.js";
import {Latency} from "./latency.js";
import {takeLink} from "./link.js";
import {Machines} from "./machines.js";
import {Notice} from "./notice.js";
import {Panels} from "./panels.js";
import {Server} from "./server.js";
import {Session} from "./session.js";
import {Thumbnails} from "./thumbnails.js";
import {explain, missing, unlinked} from "./words.js";

/** The modules that show each kind of console. The page loads a module when it opens such a console. */
const VIEWS = {
    vnc: async () => (await import("./screen.js")).Screen,
    console: async () => (await import("./serial.js")).Serial,
};

/** The buttons that each open console has. */
const TOOLS = [
    "open-keys",
    "open-clipboard",
    "view-only",
    ...(document.fullscreenEnabled ? ["full-screen"] : []),
    "disconnect",
];

const root = new URL("../", import.meta.url).href;
const find = id => document.getElementById(id);

class Page {
    constructor() {
        this._server = null;
        this._vmi = "";
        this._subresource = "";
        this._view = null;
        this._viewOnly = false;
        this._screenReader = false;
        this._said = "";
        this._session = new Session(wanted => this._open(wanted));
        this._machines = new Machines(find("machine-list"));
        this._thumbnails = new Thumbnails(find("machine-list"));
        this._panels = new Panels([find("open-machines"), find("open-keys"), find("open-clipboard")]);
        this._clipboard = new Clipboard(find, text => this._say(text));
        this._latency = new Latency(new URL("healthz", root).href);
        this._expiry = new Expiry();
        this._notice = new Notice(find, {
            tryNow: () => this._session.retry(),
            stopTrying: () => this.leave("stopped"),
        });
        this._listen();
    }

    /** @param {import("./link.js").Link | null} link - the link to open; null if the address has none. */
    begin(link) {
        this._session.leave();
        this._disconnected("");
        this._panels.show(null);
        this._thumbnails.set(null, "");
        this._expiry.set(null);
        if (link === null) {
            const [navigation] = performance.getEntriesByType("navigation");
            this._notice.show(unlinked(navigation?.type === "reload", `${root}console/`));
            return;
        }
        this._server = new Server(root, link.token);
        this._choose(link.vmi, link.subresource);
    }

    /**
     * Leave the console, and stop reconnecting.
     *
     * @param {string} cause - the reason to show, see `explain`.
     */
    leave(cause) {
        if (this._session.active) {
            this._session.leave();
            this._ended({cause, code: 1000, reason: "", mayRetry: true, delay: null});
        }
    }

    _listen() {
        const on = (target, type, handler) => target.addEventListener(type, event => handler(event.detail));
        on(this._machines, "choose", ({vmi, subresource}) => {
            this._panels.show(null);
            this._choose(vmi, subresource);
        });
        on(this._session, "connecting", () => this._connecting());
        on(this._session, "ready", ({view}) => this._ready(view));
        on(this._session, "waiting", detail => this._ended(detail));
        on(this._session, "ended", detail => this._ended(detail));
        on(this._latency, "measured", ({milliseconds}) => this._measured(milliseconds));
        on(this._expiry, "tick", ({shown, said, soon}) => {
            find("countdown").textContent = shown;
            find("bar").classList.toggle("urgent", soon);
            this._say(said);
        });
        on(find("view-only"), "click", () => this._setViewOnly(!this._viewOnly));
        on(find("screen-reader"), "click", () => this._setScreenReader(!this._screenReader));
        on(find("disconnect"), "click", () => this.leave("left"));
        on(find("full-screen"), "click", toggleFullScreen);
        on(document, "fullscreenchange", () => {
            find("full-screen").setAttribute("aria-pressed", String(document.fullscreenElement !== null));
        });
        this._letOut();
    }

    /** Move the focus to the buttons when the user presses and releases Ctrl, Alt and Shift together. */
    _letOut() {
        let armed = false;
        find("view").addEventListener("keydown", event => {
            const modifier = ["Control", "Alt", "Shift", "Meta"].includes(event.key);
            armed = modifier && (armed || (event.ctrlKey && event.altKey && event.shiftKey));
        }, true);
        find("view").addEventListener("keyup", event => {
            if (armed && !event.ctrlKey && !event.altKey && !event.shiftKey && !event.metaKey) {
                armed = false;
                // Wait until noVNC has seen the release of the last key, too.
                setTimeout(() => find("tools").querySelector("button:not([hidden])").focus());
            }
        }, true);
    }

    _choose(vmi, subresource) {
        this._vmi = vmi;
        this._subresource = subresource;
        this._disconnected("");
        this._notice.show({title: "Opening the console", text: "", detail: ""});
        this._session.retry();
    }

    /**
     * Begin an attempt.
     *
     * @param {() => boolean} wanted - false if the user has chosen something else meanwhile.
     * @returns {Promise<{socket: WebSocket, view: EventTarget} | null>} null if there is nothing to open; the page
     *     then says why.
     */
    async _open(wanted) {
        const server = this._server;
        const grant = await server.grant();
        if (!wanted()) {
            return null;
        }
        this._granted(grant);
        if (this._vmi === "") {
            this._notice.show({title: "Choose a machine", text: "", detail: ""});
            this._panels.show(find("open-machines"));
            return null;
        }
        const View = await load(this._subresource);
        if (!wanted()) {
            return null;
        }
        if (View === null) {
            this._notice.show(missing(this._subresource));
            return null;
        }
        const socket = server.open(grant.namespace, this._vmi, this._subresource);
        const view = new View(find("view"), socket, {
            viewOnly: this._viewOnly,
            label: `${this._subresource === "vnc" ? "Screen" : "Serial console"} of ${this._vmi}`,
            description: "way-out",
        });
        return {socket, view};
    }

    _granted({namespace, vmis, subresources, expires_in: seconds, grace, screenshots}) {
        this._expiry.set(seconds === null || grace === null ? null : seconds + grace);
        this._machines.set(vmis, subresources);
        this._thumbnails.set(screenshots ? this._server : null, namespace);
        if (this._vmi === "" && vmis.length === 1) {
            [this._vmi] = vmis;
        }
        this._subresource ||= subresources[0];
        this._machines.mark(this._vmi, this._subresource);
        find("open-machines").hidden = !this._machines.hasChoice;
        this._name();
    }

    _name() {
        find("title").textContent = this._vmi || "Console";
        document.title = this._vmi === "" ? "Console" : `${this._vmi} - console`;
    }

    _connecting() {
        find("state").textContent = "Connecting";
        this._notice.trying();
    }

    _ready(view) {
        const takeFocus = document.activeElement === document.body || this._notice.hasFocus;
        this._view = view;
        this._thumbnails.open = this._subresource === "vnc" ? this._vmi : "";
        this._notice.hide();
        find("view").classList.add("open");
        for (const id of TOOLS) {
            find(id).hidden = false;
        }
        this._showKeys(view);
        this._clipboard.attach(view);
        this._setViewOnly(this._viewOnly);
        if ("screenReader" in view) { // only terminals have it: a screen reader cannot read pixels
            find("screen-reader").hidden = false;
            this._setScreenReader(this._screenReader);
        }
        this._latency.start();
        find("state").textContent = "Connected";
        this._say(`Connected to ${this._vmi}`);
        if (takeFocus) {
            view.focus();
        }
    }

    _ended({cause, code, reason, mayRetry, delay}) {
        const words = explain(cause, code, reason);
        const again = cause === "taken-over" ? "Take it back" : "Connect again";
        this._disconnected("Not connected");
        this._notice.show(words, delay === null ? (mayRetry ? again : "") : "Connect now", delay);
        this._say(`${words.title}. ${words.text}`);
    }

    _disconnected(state) {
        this._view = null;
        this._thumbnails.open = "";
        this._latency.stop();
        find("view").classList.remove("open");
        for (const id of [...TOOLS, "screen-reader"]) {
            find(id).hidden = true;
        }
        this._panels.tidy();
        find("state").textContent = state;
        find("latency").textContent = "";
    }

    _showKeys(view) {
        find("key-list").replaceChildren(...view.keys.map(({name, label}) => {
            const button = document.createElement("button");
            button.type = "button";
            button.textContent = label;
            button.addEventListener("click", () => view.sendKey(name));
            return button;
        }));
    }

    _setViewOnly(viewOnly) {
        this._viewOnly = viewOnly;
        this._view.viewOnly = viewOnly;
        this._clipboard.closed = viewOnly;
        find("key-list").disabled = viewOnly;
        find("view-only").setAttribute("aria-pressed", String(viewOnly));
    }

    _setScreenReader(screenReader) {
        this._screenReader = screenReader;
        this._view.screenReader = screenReader;
        find("screen-reader").setAttribute("aria-pressed", String(screenReader));
    }

    _measured(milliseconds) {
        find("latency").textContent = milliseconds === null ? "" : `Delay ${Math.round(milliseconds)} ms`;
    }

    /** Announce a text to screen readers, unless it was the last one. */
    _say(text) {
        if (text !== "" && text !== this._said) {
            this._said = text;
            find("said").textContent = text;
        }
    }
}

/**
 * @param {string} subresource
 * @returns {Promise<Function | null>} the class that shows such a console; null if it cannot be loaded.
 */
async function load(subresource) {
    try {
        return await VIEWS[subresource]();
    } catch {
        return null;
    }
}

async function toggleFullScreen() {
    if (document.fullscreenElement !== null) {
        await document.exitFullscreen();
        return;
    }
    await document.documentElement.requestFullscreen();
    try {
        await navigator.keyboard?.lock(); // Esc and Alt+Tab then reach the machine; holding Esc leaves full screen
    } catch {
        // The browser handles these keys itself.
    }
}

const page = new Page();
window.addEventListener("hashchange", () => {
    const link = takeLink(window);
    if (link !== null) {
        page.begin(link);
    }
});
// The browser may keep a page that the user has left, with its connections.
window.addEventListener("pagehide", () => page.leave("left"));
page.begin(takeLink(window));
