/**
 * What a person reads when a console ends or is refused. Pure.
 *
 * @typedef {object} Words
 * @property {string} title - what happened, in a few words.
 * @property {string} text - what that means and what can be done.
 * @property {string} detail - what the proxy said itself; "" for nothing more than the above.
 */

const NEW_LINK = "Open the console again from where you got its link.";

/** Title and text by cause; see `causeOf`. */
const WORDS = {
    // Refusals.
    "bad-request": ["The link is not right", `The proxy does not understand it. ${NEW_LINK}`],
    "head-too-large": [
        "The browser sends too much",
        "This site has set more cookies than the proxy takes. Delete them, and connect again.",
    ],
    "not-found": ["There is no console at this address", NEW_LINK],
    "bad-token": ["The link is not valid", `The proxy does not accept its token. ${NEW_LINK}`],
    "token-expired": ["Your access has expired", NEW_LINK],
    "token-not-yet-valid": ["Your access has not begun yet", "Try again in a moment: the clock of who made the link may be ahead."],
    "forbidden": ["This console is not for you", "The link does not allow it, or not from this page."],
    "vmi-not-found": ["The machine is not there", "It may be stopped, or not have been made yet."],
    "console-busy": ["Somebody else is using this console", "Try again when they have left it."],
    "vmi-not-running": ["The machine is not running", "The console opens as soon as it has started."],
    "vmi-no-console": ["The machine has no console of this kind", "It was made without one."],
    "limit": ["Too many consoles are open", "The proxy has reached a limit. It has room again when others have ended."],
    "limit-user": ["You have too many consoles open", "Close one that you do not need."],
    "limit-vmi": ["Too many people are at this machine", "One of them has to leave first."],
    "limit-address": ["Too many connections come from your network", "Close consoles that you do not need."],
    "limit-failures": ["Too many attempts have failed", "The proxy takes no more from your network for a while."],
    "busy": ["The proxy is full", "It has room again when others have left."],
    "draining": ["The proxy is restarting", "It will be back in a moment."],
    "upstream-refused": ["The cluster did not open the console", "If this goes on, tell whoever runs it."],
    "upstream-timeout": ["The cluster does not answer", "If this goes on, tell whoever runs it."],
    // Ends.
    "restarting": ["The proxy is restarting", "It will be back in a moment."],
    "idle": ["The console was closed because nobody used it", "Connect again to go on where you were."],
    "taken-over": ["Somebody else took this console over", "If you take it back, they lose it."],
    "expired": ["Your access has expired", NEW_LINK],
    "max-age": ["The console was open for as long as is allowed", "Connect again to go on where you were."],
    "kicked": ["The console was closed by an operator", "Ask them before you connect again."],
    "upstream-closed": ["The machine closed the console", "It may have been stopped or restarted."],
    "upstream-protocol-error": ["The connection broke", "The machine's side did not follow the WebSocket protocol."],
    "contested": [
        "The machine keeps closing the console",
        "Perhaps somebody else uses it at the same time: each of you would throw the other one out.",
    ],
    "closed": ["The console was closed", "Connect again to go on where you were."],
    "refused": ["The machine refused the console", "If this goes on, tell whoever runs it."],
    "stopped": ["Not connected", "Nothing is tried any more."],
    "left": ["You have left the console", "The machine goes on without you."],
    "protocol-error": ["The connection broke", "One side did not follow the WebSocket protocol."],
    "too-big": ["The connection broke", "A message was larger than the proxy takes."],
    "failed": ["The proxy failed", "If this goes on, tell whoever runs it."],
    // What no side said.
    "lost": ["The connection was lost", "The network, or the proxy, has gone away."],
    "unreachable": ["The proxy cannot be reached", "Check your network."],
    "no-websocket": [
        "The console was refused",
        "The proxy answers, but browsers do not show why it, or a server before it, refused. Tell whoever runs them.",
    ],
};

/** Codes that say all, whatever the reason. */
const BY_CODE = {
    1000: "closed",
    1001: "lost",
    1002: "protocol-error",
    1005: "closed",
    1009: "too-big",
    1012: "restarting",
    4400: "bad-request",
    4401: "bad-token",
    4403: "forbidden",
    4404: "not-found",
    4408: "idle",
    4409: "console-busy",
    4410: "taken-over",
    4411: "expired",
    4412: "max-age",
    4420: "vmi-not-running",
    4421: "vmi-no-console",
    4429: "limit",
    4431: "head-too-large",
    4499: "kicked",
    4500: "failed",
    4502: "upstream-refused",
    4503: "busy",
    4504: "upstream-timeout",
};

/** What of several meanings one code has; the slug tells. */
const SLUGS = {
    1006: ["no-websocket"], // which the page says itself
    1011: ["upstream-closed", "upstream-refused", "upstream-protocol-error"],
    4401: ["token-expired", "token-not-yet-valid"],
    4404: ["vmi-not-found"],
    4429: ["limit-user", "limit-vmi", "limit-address", "limit-failures"],
    4503: ["draining"],
};

/**
 * Say in one word why a console ended.
 *
 * @param {number} code - of the Close, or 1006 if there was none.
 * @param {string} reason - of the Close.
 * @param {boolean} ready - whether the console was open.
 * @returns {string} a cause that there are words for, or "unknown".
 */
export function causeOf(code, reason, ready) {
    const {slug} = split(reason);
    if (SLUGS[code]?.includes(slug)) {
        return slug;
    }
    if (code === 1006) {
        return ready ? "lost" : "unreachable";
    }
    if (code === 1011) {
        return "failed";
    }
    if (code === 1005 && !ready) {
        return "refused"; // in the machine's own protocol, upon which the page closed
    }
    return BY_CODE[code] ?? "unknown";
}

/**
 * Put a cause into words.
 *
 * @param {string} cause - see `causeOf`.
 * @param {number} code
 * @param {string} reason
 * @returns {Words}
 */
export function explain(cause, code, reason) {
    const {message} = split(reason);
    const told = cause === "taken-over" && message.startsWith("by ") ? `it was taken over ${message}` : message;
    const detail = told === "" ? "" : sentence(told);
    if (cause === "unknown") {
        return {title: "The console was closed", text: `The code ${code} was given for it.`, detail};
    }
    const [title, text] = WORDS[cause];
    return {title, text, detail};
}

const SOFTWARE = {
    vnc: ["noVNC", "install the Debian package novnc, or unpack what \"npm pack @novnc/novnc\" gets, and start the proxy with --novnc DIR"],
    console: ["xterm.js", "unpack what \"npm pack @xterm/xterm\" gets, and start the proxy with --xterm DIR"],
};

/**
 * Say that what shows a console is not there.
 *
 * @param {string} subresource
 * @returns {Words}
 */
export function missing(subresource) {
    if (!(subresource in SOFTWARE)) {
        return {title: "This page cannot show such a console", text: "It knows vnc and console.", detail: ""};
    }
    const [name, remedy] = SOFTWARE[subresource];
    return {
        title: `${name} is not there`,
        text: `This page shows the console with ${name}, which the proxy did not deliver.`,
        detail: `Whoever runs the proxy can ${remedy}.`,
    };
}

/**
 * Say that the page was opened without a link.
 *
 * @param {boolean} again - whether it was there before.
 * @param {string} address - of the page.
 * @returns {Words}
 */
export function unlinked(again, address) {
    return {
        title: again ? "The page has forgotten who you are" : "There is no token in the link",
        text: again ? `It keeps nothing when it is loaded anew. ${NEW_LINK}` : NEW_LINK,
        detail: `Such a link looks like ${address}#TOKEN/MACHINE.`,
    };
}

/**
 * Say how long something takes.
 *
 * @param {number} seconds
 * @returns {string} such as "4 min 05 s".
 */
export function duration(seconds) {
    const whole = Math.max(0, Math.ceil(seconds));
    const minutes = Math.floor(whole / 60);
    if (minutes === 0) {
        return `${whole} s`;
    }
    if (minutes < 60) {
        return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
    }
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/**
 * Take a reason apart: "slug: message", where a peer's own may be any text.
 *
 * @param {string} reason
 * @returns {{slug: string, message: string}}
 */
function split(reason) {
    const found = /^([a-z][a-z0-9-]*)(?:: (.*))?$/su.exec(reason);
    return found === null ? {slug: "", message: reason} : {slug: found[1], message: found[2] ?? ""};
}

/**
 * @param {string} text
 * @returns {string} it with a capital letter, unless it begins with a name such as "a.b", and a full stop.
 */
function sentence(text) {
    const line = /^\S*\.\S/u.test(text) ? text : text[0].toUpperCase() + text.slice(1);
    return /[.!?]$/u.test(line) ? line : `${line}.`;
}
