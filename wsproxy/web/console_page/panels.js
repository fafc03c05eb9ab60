/** Panels, each of which a button opens and closes. Only one is open at a time. */

export class Panels {
    /** @param {HTMLButtonElement[]} buttons - each has `aria-controls` and `aria-expanded`. */
    constructor(buttons) {
        this._buttons = buttons;
        for (const button of buttons) {
            button.addEventListener("click", () => this.show(isOpen(button) ? null : button));
            panelOf(button).addEventListener("keydown", event => {
                if (event.key === "Escape") {
                    this.show(null);
                    button.focus();
                }
            });
        }
    }

    /** @param {HTMLButtonElement | null} shown - the button whose panel to open; null closes all panels. */
    show(shown) {
        for (const button of this._buttons) {
            button.setAttribute("aria-expanded", String(button === shown));
            panelOf(button).hidden = button !== shown;
        }
    }

    /** Close all panels if the open one's button is hidden. */
    tidy() {
        if (this._buttons.some(button => button.hidden && isOpen(button))) {
            this.show(null);
        }
    }
}

const isOpen = button => button.getAttribute("aria-expanded") === "true";
const panelOf = button => document.getElementById(button.getAttribute("aria-controls"));
