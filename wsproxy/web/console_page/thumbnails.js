/** Small pictures of the machines' screens, in the list of the machines. */

const INTERVAL = 10_000; // milliseconds from one picture of a machine to the next
const LONGEST = 120_000; // milliseconds at most, if requests for a picture keep failing

/** The words in place of a picture, by the code of the refusal. */
const WORDS = {4404: "Not found", 4420: "Not running", 4421: "No screen"};
const NOT_AUTHENTICATED = 4401;
const LIMITED = 4429;

/** Renews the pictures of a list, one after the other, while the user can see them. */
export class Thumbnails {
    /** @param {HTMLUListElement} list - the list of machines; `data-vmi` of each item names its machine. */
    constructor(list) {
        this._list = list;
        this._server = null;
        this._namespace = "";
        this._open = "";
        this._thumbnails = new Map(); // by item
        this._renewing = false;
        this._timer = 0;
        this._observer = new IntersectionObserver(entries => {
            for (const {target, isIntersecting} of entries) {
                const thumbnail = this._thumbnails.get(target);
                if (thumbnail !== undefined) {
                    thumbnail.seen = isIntersecting;
                }
            }
            this._renew();
        });
        document.addEventListener("visibilitychange", () => this._renew());
    }

    /**
     * Show pictures of the machines that are in the list now. Pictures that are shown already stay.
     *
     * @param {import("./server.js").Server | null} server - the proxy to get pictures from; null for no pictures.
     * @param {string} namespace - the machines' namespace.
     */
    set(server, namespace) {
        this._server = server;
        this._namespace = namespace;
        this._list.classList.toggle("pictured", server !== null);
        const items = new Set(server === null ? [] : this._list.children);
        for (const [item, thumbnail] of this._thumbnails) {
            if (!items.has(item)) {
                this._observer.unobserve(item);
                this._thumbnails.delete(item);
                thumbnail.remove();
            }
        }
        for (const item of items) {
            if (!this._thumbnails.has(item)) {
                this._thumbnails.set(item, new Thumbnail(item));
                this._observer.observe(item);
            }
        }
        this.open = this._open;
    }

    /** @param {string} vmi - the machine whose screen is open in the page; "" for none. */
    set open(vmi) {
        this._open = vmi;
        for (const thumbnail of this._thumbnails.values()) {
            thumbnail.open = thumbnail.vmi === vmi;
        }
        this._renew();
    }

    /** Get the pictures that are due, and set a timer for the next one. */
    async _renew() {
        clearTimeout(this._timer);
        if (this._renewing) {
            return; // the running call gets pictures that have become due meanwhile
        }
        this._renewing = true;
        let next = this._next();
        while (next !== null && next.due <= performance.now()) {
            await this._take(next);
            next = this._next();
        }
        this._renewing = false;
        if (next !== null) {
            this._timer = setTimeout(() => this._renew(), next.due - performance.now());
        }
    }

    /** @returns {Thumbnail | null} of the visible thumbnails, the one that is due first. */
    _next() {
        if (this._server === null || document.hidden) {
            return null;
        }
        const seen = [...this._thumbnails.values()].filter(thumbnail => thumbnail.seen && !thumbnail.open);
        return seen.reduce((first, other) => (first === null || other.due < first.due ? other : first), null);
    }

    async _take(thumbnail) {
        const server = this._server;
        try {
            const image = await decoded(await server.screenshot(this._namespace, thumbnail.vmi));
            if (server === this._server) {
                thumbnail.show(image);
            }
        } catch (error) {
            if (server !== this._server) {
                return;
            }
            thumbnail.fail(error.code);
            if (error.code === NOT_AUTHENTICATED) {
                this.set(null, "");
            }
        }
    }
}

/** The place of one machine's picture. */
class Thumbnail {
    /** @param {HTMLLIElement} item - an item of the list. */
    constructor(item) {
        this.vmi = item.dataset.vmi;
        this.seen = false; // whether it is within the visible part of the page
        this.due = 0; // when its next picture is due, by performance.now()
        this._delay = INTERVAL;
        this._open = false;
        this._place = document.createElement("div");
        this._place.className = "thumbnail";
        item.prepend(this._place);
    }

    get open() {
        return this._open;
    }

    set open(open) {
        if (open !== this._open) {
            this._open = open;
            this.due = 0;
            this._place.textContent = open ? "Open here" : "";
        }
    }

    /** @param {HTMLImageElement} image - the new picture. */
    show(image) {
        this._again(INTERVAL);
        if (!this._open) {
            image.alt = `Screen of ${this.vmi}`;
            this._place.replaceChildren(image);
        }
    }

    /** @param {number | undefined} code - the refusal's code; undefined if the answer is not a picture. */
    fail(code) {
        this._again(code in WORDS ? INTERVAL : Math.min(2 * this._delay, LONGEST));
        if (!this._open && code !== LIMITED) {
            this._place.textContent = WORDS[code] ?? "No picture";
        }
    }

    remove() {
        this._place.remove();
    }

    _again(delay) {
        this._delay = delay;
        this.due = performance.now() + delay;
    }
}

/**
 * @param {Blob} blob
 * @returns {Promise<HTMLImageElement>} the decoded picture.
 */
async function decoded(blob) {
    const url = URL.createObjectURL(blob);
    try {
        const image = new Image();
        image.src = url;
        await image.decode();
        return image;
    } finally {
        URL.revokeObjectURL(url); // the image has been decoded
    }
}
