/**
 * Lets xterm.js (6.0) run under a Content-Security-Policy that allows no inline styles (`style-src 'self'`).
 *
 * xterm.js writes its rules into style elements, and colours outside its palette into style attributes. This module
 * turns the elements into constructed style sheets, and sets the attributes by the CSSOM. The policy allows both.
 */

HTMLSpanElement.prototype.setAttribute = function (name, value) { // shadows that of Element.prototype
    if (name === "style") {
        this.style.cssText = value;
    } else {
        Element.prototype.setAttribute.call(this, name, value);
    }
};

/**
 * Call a function, and replace the style elements that it creates.
 *
 * @param {() => void} run - the function.
 */
export function withoutStyleElements(run) {
    document.createElement = (name, options) => ( // shadows that of Document.prototype
        name === "style" ? styleSheet() : Document.prototype.createElement.call(document, name, options)
    );
    try {
        run();
    } finally {
        delete document.createElement;
    }
}

/** @returns {HTMLElement} an element that applies rules as a style element does, until it is removed. */
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
