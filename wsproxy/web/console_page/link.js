/**
 * Reads the link that opens a console: `/console/#TOKEN/VMI`, `#TOKEN`, or `#TOKEN/VMI/SUBRESOURCE`.
 *
 * @typedef {object} Link
 * @property {string} token - the token for the server; the page keeps it in memory only.
 * @property {string} vmi - name of the virtual machine instance, "" if the link names none.
 * @property {string} subresource - "vnc", "console", or "" for the default one.
 */

/**
 * Read a fragment.
 *
 * @param {string} fragment - the fragment, as in `location.hash`.
 * @returns {Link | null} null if the fragment holds no token.
 */
export function parseLink(fragment) {
    const [token, vmi = "", subresource = ""] = fragment.replace(/^#\/*/, "").split("/");
    return /^[\w.-]+$/u.test(token) ? {token, vmi, subresource} : null;
}

/**
 * Read the link of a window, and remove it from the address bar and the tab's history.
 *
 * @param {Window} window
 * @returns {Link | null}
 */
export function takeLink(window) {
    const {hash, pathname} = window.location;
    if (hash !== "" || window.location.search !== "") {
        window.history.replaceState(null, "", pathname);
    }
    return parseLink(hash);
}
