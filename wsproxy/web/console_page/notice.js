/** What stands in place of a console that is not open. */

export class Notice {
    /**
     * @param {(id: string) => HTMLElement} find - finds the page's elements.
     * @param {{tryNow: () => void, stopTrying: () => void}} actions - of its buttons.
     */
    constructor(find, {tryNow, stopTrying}) {
        this._whole = find("notice");
        this._title = find("notice-title");
        this._text = find("notice-text");
        this._detail = find("notice-detail");
        this._next = find("notice-next");
        this._tryNow = find("try-now");
        this._stopTrying = find("stop-trying");
        this._timer = 0;
        this._tryNow.addEventListener("click", tryNow);
        this._stopTrying.addEventListener("click", stopTrying);
    }

    /**
     * Show something, with no more than this.
     *
     * @param {import("./words.js").Words} words
     * @param {string} retry - what the button says that connects; "" for no such button.
     * @param {number | null} seconds - until the next attempt, which is counted down to; null if there is none.
     */
    show({title, text, detail}, retry = "", seconds = null) {
        clearInterval(this._timer);
        this._whole.hidden = false;
        set(this._title, title);
        set(this._text, text);
        set(this._detail, detail);
        set(this._next, "");
        set(this._tryNow, retry);
        this._stopTrying.hidden = seconds === null;
        if (seconds !== null) {
            this._countDown(seconds);
        }
        this._keepFocus();
    }

    /** Say that an attempt is being made; the rest stays as it is. */
    trying() {
        clearInterval(this._timer);
        set(this._next, "Trying to connect");
    }

    hide() {
        clearInterval(this._timer);
        this._whole.hidden = true;
    }

    /** Whether the keyboard is in here. */
    get hasFocus() {
        return this._whole.contains(document.activeElement);
    }

    _countDown(seconds) {
        const end = performance.now() + seconds * 1000;
        const tick = () => {
            const left = Math.max(0, Math.ceil((end - performance.now()) / 1000));
            set(this._next, `Next attempt in ${left} s`);
        };
        tick();
        this._timer = setInterval(tick, 1000);
    }

    /** Take the focus if what had it is no more. */
    _keepFocus() {
        const active = document.activeElement;
        if (active === null || active === document.body || active.checkVisibility?.() === false) {
            this._title.focus();
        }
    }
}

function set(element, text) {
    element.textContent = text;
    element.hidden = text === "";
}
