/**
 * Text to and from the machine. The page only shows text of the machine, and copies it to the user's clipboard if the
 * user asks. Otherwise a machine could replace text that the user wants to paste elsewhere.
 */
export class Clipboard {
    /**
     * @param {(id: string) => HTMLElement} find - finds the page's elements.
     * @param {(text: string) => void} say - announces a text to screen readers.
     */
    constructor(find, say) {
        this._say = say;
        this._view = null;
        this._set = find("outgoing-set");
        this._outgoing = find("outgoing");
        this._incoming = find("incoming");
        this._copy = find("copy");
        this._type = find("type");
        this._paste = find("paste");
        this._paste.addEventListener("click", () => this._view.paste(this._outgoing.value));
        this._type.addEventListener("click", () => this._view.type(this._outgoing.value));
        this._copy.addEventListener("click", () => this._copyIncoming());
    }

    /**
     * Serve another console, and forget the text of the previous one.
     *
     * @param {EventTarget} view
     */
    attach(view) {
        this._view = view;
        this._show("");
        this._type.hidden = !("type" in view);
        this._paste.textContent = this._type.hidden ? "Paste" : "Send to its clipboard";
        view.addEventListener("clipboard", ({detail}) => {
            if (view === this._view) {
                this._show(detail.text);
                this._say("The machine sent text");
            }
        });
    }

    /** @param {boolean} closed - whether the user may send no text to the machine. */
    set closed(closed) {
        this._set.disabled = closed;
    }

    _show(text) {
        this._incoming.value = text;
        this._copy.disabled = text === "";
    }

    async _copyIncoming() {
        try {
            await navigator.clipboard.writeText(this._incoming.value);
            this._say("Copied");
        } catch {
            this._incoming.select(); // without TLS or permission, the user must copy the text
            this._say("Your browser does not allow copying. The text is selected: press Ctrl+C to copy it");
        }
    }
}
