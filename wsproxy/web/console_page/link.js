/**
 * The link that a console is opened by: `/console/#TOKEN/VMI`, or `#TOKEN`, or `#TOKEN/VMI/SUBRESOURCE`.
 *
 * @typedef {object} Link
 * @property {string} token - what the server is shown; kept in memory only.
 * @property {string} vmi - name of the virtual machine instance, "" if the link names none.
 * @property {string} subresource - "vnc", "console", or "" for the default one.
 */

/**
 * Read a fragment.
 *
 * @param {string} fragment - as in `location.hash`.
 * @returns {Link | null} null if it holds no token.
 */
export function parseLink(fragment) {
    const [token, vmi = "", subresource = ""] = fragment.replace(/^#\/*/, "").split("/");
    return /^[\w.-]+$/u.test(token) ? {token, vmi, subresource} : null;
}

/**
 * Read the link of a window, and take it out of the address bar and the tab's history.
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
