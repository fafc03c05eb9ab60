/**
 * Text to and from the machine. What comes from it is only shown; it reaches the person's clipboard when they ask
 * for it, because a machine could change what they are about to paste elsewhere.
 */
export class Clipboard {
    /**
     * @param {(id: string) => HTMLElement} find - finds the page's elements.
     * @param {(text: string) => void} say - tells it to whoever does not see.
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
     * Serve another console; what the one before sent is forgotten.
     *
     * @param {EventTarget} view
     */
    attach(view) {
        this._view = view;
        this._show("");
        this._type.hidden = !("type" in view);
        this._paste.textContent = this._type.hidden ? "Paste" : "Put on its clipboard";
        view.addEventListener("clipboard", ({detail}) => {
            if (view === this._view) {
                this._show(detail.text);
                this._say("Text came from the machine");
            }
        });
    }

    /** @param {boolean} closed - whether the machine takes nothing. */
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
            this._incoming.select(); // without TLS, or without permission, the person copies it
            this._say("The browser does not allow it. The text is selected: copy it with Ctrl+C");
        }
    }
}
