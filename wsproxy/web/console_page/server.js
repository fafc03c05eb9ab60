/**
 * The page's requests to the proxy that served it. The token goes into headers and subprotocols, never into a URL.
 *
 * @typedef {object} Grant
 * @property {string} user
 * @property {string} namespace
 * @property {string[]} vmis - the machines that the token allows.
 * @property {number | null} expires_in - seconds until the token expires; null if it does not.
 * @property {number | null} grace - seconds for which a console outlives its token; null if it may stay open.
 * @property {string[]} subresources - such as "vnc", "console"; the first is the default one.
 * @property {boolean} screenshots - whether the proxy serves pictures of screens.
 */

const JSON_TYPE = "application/json";
const BEARER = "base64url.bearer.authorization.k8s.io.";

/** A refusal of the proxy, or no answer from it. */
export class Refusal extends Error {
    /**
     * @param {number} code - the close code that a WebSocket would get; 1006 if the page did not reach the proxy.
     * @param {string} reason - "slug: message".
     */
    constructor(code, reason) {
        super(reason);
        this.code = code;
        this.reason = reason;
    }
}

/** The proxy, asked with one token. */
export class Server {
    /**
     * @param {string} root - the URL of the proxy with its path prefix, with a slash at its end.
     * @param {string} token
     */
    constructor(root, token) {
        this.root = root;
        this._token = token;
    }

    /**
     * Ask what the token allows.
     *
     * @returns {Promise<Grant>}
     * @throws {Refusal}
     */
    async grant() {
        const response = await this._get("console/grant");
        try {
            return await response.json();
        } catch {
            throw new Refusal(4404, ""); // some other server has answered
        }
    }

    /**
     * Begin to open a console.
     *
     * @param {string} namespace
     * @param {string} vmi
     * @param {string} subresource
     * @returns {WebSocket}
     */
    open(namespace, vmi, subresource) {
        const path = ["-", namespace, vmi, subresource];
        const url = new URL(path.map(encodeURIComponent).join("/"), this.root);
        url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
        const socket = new WebSocket(url, ["binary", BEARER + base64url(this._token)]);
        socket.binaryType = "arraybuffer";
        return socket;
    }

    /**
     * Get a picture of a machine's screen, which does not disturb its console.
     *
     * @param {string} namespace
     * @param {string} vmi
     * @returns {Promise<Blob>}
     * @throws {Refusal}
     */
    async screenshot(namespace, vmi) {
        const path = ["-", namespace, vmi, "screenshot.png"].map(encodeURIComponent).join("/");
        // With JSON in Accept, the proxy answers a stopped machine with 200, and the browser logs no error.
        const response = await this._get(path, {Accept: `image/png, ${JSON_TYPE}`});
        if (response.headers.get("Content-Type") === JSON_TYPE) {
            throw await refusalOf(response);
        }
        return response.blob();
    }

    /**
     * Send a GET request with the token.
     *
     * @param {string} path - path below the root.
     * @param {object} further - further headers.
     * @returns {Promise<Response>} a successful response.
     * @throws {Refusal}
     */
    async _get(path, further = {}) {
        let response;
        try {
            const headers = {Authorization: `Bearer ${this._token}`, ...further};
            response = await fetch(new URL(path, this.root), {headers, cache: "no-store", redirect: "error"});
        } catch {
            throw new Refusal(1006, "");
        }
        if (!response.ok) {
            throw await refusalOf(response);
        }
        return response;
    }
}

/**
 * @param {Response} response
 * @returns {Promise<Refusal>}
 */
async function refusalOf(response) {
    try {
        const {code, reason, message} = await response.json();
        return new Refusal(code ?? 4000 + response.status, `${reason}: ${message}`);
    } catch {
        return new Refusal(4000 + response.status, ""); // a server in front of the proxy has answered
    }
}

/**
 * @param {string} text - ASCII characters.
 * @returns {string} the text in base64url (RFC 4648 section 5), without padding.
 */
function base64url(text) {
    return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
