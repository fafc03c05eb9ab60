/**
 * The least that a page has to do around noVNC as a library, as its docs/API.md has it: it opens the console that
 * host, port and path name, and shows what noVNC tells it.
 */

import RFB from "./core/rfb.js";

const wanted = new URLSearchParams(location.search);
const events = document.getElementById("events");

/** @param {string} text */
function show(text) {
    const item = document.createElement("li");
    item.textContent = text;
    events.append(item);
}

const url = `ws://${wanted.get("host")}:${wanted.get("port")}/${wanted.get("path")}`;
const rfb = new RFB(document.getElementById("screen"), url);
rfb.addEventListener("connect", () => {
    document.body.dataset.state = "connected";
});
rfb.addEventListener("securityfailure", ({detail}) => show(`securityfailure: ${detail.reason}`));
rfb.addEventListener("disconnect", ({detail}) => {
    show(`disconnect: ${detail.clean ? "clean" : "not clean"}`);
    document.body.dataset.state = "disconnected";
});
