/** The list of the machines that the token allows, with a button for each console. */

const KINDS = {vnc: "Screen", console: "Serial console"};

/** Event: `choose`, with `vmi` and `subresource`. */
export class Machines extends EventTarget {
    /** @param {HTMLUListElement} list - the element to fill. */
    constructor(list) {
        super();
        this._list = list;
        this._known = "";
    }

    /**
     * Show the machines and consoles that a token allows. Does nothing if the list shows them already.
     *
     * @param {string[]} vmis
     * @param {string[]} subresources
     */
    set(vmis, subresources) {
        const kinds = subresources.filter(subresource => subresource in KINDS);
        const known = JSON.stringify([vmis, kinds]);
        if (known !== this._known) {
            this._known = known;
            this._list.replaceChildren(...vmis.map(vmi => this._item(vmi, kinds)));
        }
    }

    /**
     * Mark the console that is open.
     *
     * @param {string} vmi
     * @param {string} subresource
     */
    mark(vmi, subresource) {
        for (const button of this._list.querySelectorAll("button")) {
            const current = button.dataset.vmi === vmi && button.dataset.subresource === subresource;
            button.setAttribute("aria-current", String(current));
        }
    }

    /** Whether there is more than one console to choose from. */
    get hasChoice() {
        return this._list.querySelectorAll("button").length > 1;
    }

    _item(vmi, kinds) {
        const item = document.createElement("li");
        item.dataset.vmi = vmi;
        const name = document.createElement("span");
        name.textContent = vmi;
        item.append(name, ...kinds.map(kind => this._button(vmi, kind)));
        return item;
    }

    _button(vmi, subresource) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = KINDS[subresource];
        button.setAttribute("aria-label", `${KINDS[subresource]} of ${vmi}`);
        Object.assign(button.dataset, {vmi, subresource});
        button.addEventListener("click", () => {
            this.dispatchEvent(new CustomEvent("choose", {detail: {vmi, subresource}}));
        });
        return button;
    }
}
