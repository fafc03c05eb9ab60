/** The notice that the page shows while no console is open. */

export class Notice {
    /**
     * @param {(id: string) => HTMLElement} find - finds the page's elements.
     * @param {{tryNow: () => void, stopTrying: () => void}} actions - what its buttons do.
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
     * Show these words instead of the previous ones.
     *
     * @param {import("./words.js").Words} words
     * @param {string} retry - label of the button that connects; "" for no button.
     * @param {number | null} seconds - seconds until the next attempt, which the notice counts down; null if there is
     *     none.
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

    /** Say that the page is trying to connect. The other words stay. */
    trying() {
        clearInterval(this._timer);
        set(this._next, "Trying to connect");
    }

    hide() {
        clearInterval(this._timer);
        this._whole.hidden = true;
    }

    /** Whether the notice has the keyboard's focus. */
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

    /** Take the focus if the element that had it is gone. */
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
