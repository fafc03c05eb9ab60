/**
 * Lets xterm.js (6.0) run where the Content-Security-Policy allows no inline styles (`style-src 'self'`).
 *
 * It writes its rules into style elements, and colours that are in no palette into style attributes. Here the former
 * become constructed style sheets and the latter go through the CSSOM, both of which such a policy allows.
 */

HTMLSpanElement.prototype.setAttribute = function (name, value) { // before the one of Element.prototype
    if (name === "style") {
        this.style.cssText = value;
    } else {
        Element.prototype.setAttribute.call(this, name, value);
    }
};

/**
 * Do something that makes style elements, which then are none.
 *
 * @param {() => void} run
 */
export function withoutStyleElements(run) {
    document.createElement = (name, options) => ( // before the one of Document.prototype
        name === "style" ? styleSheet() : Document.prototype.createElement.call(document, name, options)
    );
    try {
        run();
    } finally {
        delete document.createElement;
    }
}

/** @returns {HTMLElement} what takes rules as a style element does, and takes them away when it is removed. */
function styleSheet() {
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    const element = Document.prototype.createElement.call(document, "template");
    Object.defineProperty(element, "textContent", {set: rules => sheet.replaceSync(rules)});
    element.remove = () => {
        document.adoptedStyleSheets = document.adoptedStyleSheets.filter(other => other !== sheet);
        Element.prototype.remove.call(element);
    };
    return element;
}
