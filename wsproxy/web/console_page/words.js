/**
 * The words that a user reads when a console ends or is refused. Pure.
 *
 * Users are students and teachers. To them the proxy is "the server", and the operator "your administrator".
 *
 * @typedef {object} Words
 * @property {string} title - what happened, in a few words.
 * @property {string} text - what that means, and what the user can do.
 * @property {string} detail - the proxy's own message; "" for none.
 */

const NEW_LINK = "Go back to where you got the link, and open the console again.";
const TELL = "If this happens again, tell your administrator.";
const CONTINUE = "Connect again to continue where you were.";

/** Title and text by cause; see `causeOf`. */
const WORDS = {
    // Refusals.
    "bad-request": ["The link is wrong", `The server does not understand it. ${NEW_LINK}`],
    "head-too-large": [
        "Your browser sends too much data",
        "This site has set too many cookies. Delete them, and connect again.",
    ],
    "not-found": ["There is no console at this address", NEW_LINK],
    "bad-token": ["The link is not valid", `The server does not accept it. ${NEW_LINK}`],
    "token-expired": ["Your access has expired", NEW_LINK],
    "token-not-yet-valid": [
        "Your access has not started yet",
        "Try again in a minute. The clock of the site that made your link may be ahead.",
    ],
    "forbidden": ["You may not open this console", "Your link does not allow it, or not from this page."],
    "vmi-not-found": ["The machine was not found", "It may be stopped, or not created yet."],
    "console-busy": ["Someone else is using this console", "Try again when they have left it."],
    "vmi-not-running": ["The machine is not running", "The console opens when the machine has started."],
    "vmi-no-console": ["The machine has no console of this kind", "It was created without one."],
    "limit": ["Too many consoles are open", "The server has reached a limit. Try again when others have left."],
    "limit-user": ["You have too many consoles open", "Close one that you do not need."],
    "limit-vmi": ["Too many people are using this machine", "One of them has to leave first."],
    "limit-address": ["Too many connections come from your network", "Close consoles that you do not need."],
    "limit-failures": ["Too many attempts have failed", "The server refuses your network for a while."],
    "busy": ["The server is full", "Try again when others have left."],
    "draining": ["The server is restarting", "It will be back in a moment."],
    "state-unavailable": ["The server cannot let anyone in right now", "It will be back in a moment."],
    "upstream-refused": ["The console could not be opened", TELL],
    "upstream-timeout": ["The console did not open in time", TELL],
    // Ends.
    "restarting": ["The server is restarting", "It will be back in a moment."],
    "idle": ["The console was closed because nobody used it", CONTINUE],
    "taken-over": ["Someone else took over this console", "If you take it back, they lose it."],
    "expired": ["Your access has expired", NEW_LINK],
    "max-age": ["The console reached its time limit", CONTINUE],
    "kicked": ["An administrator closed the console", "Ask them before you connect again."],
    "upstream-closed": ["The machine closed the console", "It may have been stopped or restarted."],
    "upstream-protocol-error": ["The connection broke", "The machine sent data that the server cannot pass on."],
    "contested": [
        "The machine keeps closing the console",
        "Someone else may be using it at the same time. You would keep disconnecting each other.",
    ],
    "closed": ["The console was closed", CONTINUE],
    "refused": ["The machine refused the console", TELL],
    "stopped": ["Not connected", "The page has stopped trying to connect."],
    "left": ["You have left the console", "The machine keeps running."],
    "protocol-error": ["The connection broke", "One side sent data that the other does not understand."],
    "too-big": ["The connection broke", "A message was too large for the server."],
    "failed": ["The server failed", TELL],
    // Causes that the page finds by itself.
    "lost": ["The connection was lost", "There is a problem with the network or the server."],
    "unreachable": ["The server cannot be reached", "Check your network."],
    "no-websocket": [
        "The console was refused",
        "The server, or one in front of it, refused. Your browser does not show why. Tell your administrator.",
    ],
};

/** Causes by close code, for codes whose reason does not matter. */
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

/** Slugs by close code, for codes with several meanings: the slug is the cause. */
const SLUGS = {
    1006: ["no-websocket"], // the page sets this one itself
    1011: ["upstream-closed", "upstream-refused", "upstream-protocol-error"],
    4401: ["token-expired", "token-not-yet-valid"],
    4404: ["vmi-not-found"],
    4429: ["limit-user", "limit-vmi", "limit-address", "limit-failures"],
    4503: ["draining", "state-unavailable"],
};

/**
 * Return the cause of a console's end.
 *
 * @param {number} code - the close code, or 1006 if there was no Close.
 * @param {string} reason - the close reason.
 * @param {boolean} ready - whether the console was open.
 * @returns {string} a key of WORDS, or "unknown".
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
        return "refused"; // the machine refused in its own protocol, and the page closed the socket
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
        return {title: "The console was closed", text: `The server gave the code ${code}.`, detail};
    }
    const [title, text] = WORDS[cause];
    return {title, text, detail};
}

const SOFTWARE = {
    vnc: [
        "noVNC",
        "install the Debian package novnc, or unpack the npm package @novnc/novnc and start wsproxy with --novnc DIR",
    ],
    console: ["xterm.js", "unpack the npm package @xterm/xterm and start wsproxy with --xterm DIR"],
};

/**
 * Say that the software that shows such a console is missing.
 *
 * @param {string} subresource
 * @returns {Words}
 */
export function missing(subresource) {
    if (!(subresource in SOFTWARE)) {
        return {title: "This page cannot show this console", text: "It can show vnc and console only.", detail: ""};
    }
    const [name, remedy] = SOFTWARE[subresource];
    return {
        title: `${name} is missing`,
        text: `This page needs ${name} to show the console, but the server does not have it.`,
        detail: `Your administrator can ${remedy}.`,
    };
}

/**
 * Say that the page was opened without a link.
 *
 * @param {boolean} again - whether the user has reloaded the page.
 * @param {string} address - URL of the page.
 * @returns {Words}
 */
export function unlinked(again, address) {
    return {
        title: again ? "The page has forgotten your link" : "The link is not complete",
        text: again ? `It does not keep the link when you reload the page. ${NEW_LINK}` : NEW_LINK,
        detail: `A complete link looks like ${address}#TOKEN/MACHINE.`,
    };
}

/**
 * Return a duration as text.
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
 * Split a close reason of the form "slug: message". A peer's own reason may be any text.
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
 * @returns {string} the text as a sentence: with a full stop, and a capital letter unless it begins like "a.b".
 */
function sentence(text) {
    const line = /^\S*\.\S/u.test(text) ? text : text[0].toUpperCase() + text.slice(1);
    return /[.!?]$/u.test(line) ? line : `${line}.`;
}
