// Elements and numbers. Text goes in as text nodes alone: nothing here or elsewhere makes HTML out of a string.

const SVG = 'http://www.w3.org/2000/svg';
const DASH = '–';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

let lastId = 0;
const freshId = (prefix) => `${prefix}-${++lastId}`;

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

// A label and its control as one block; `control` gets an id of its own.
function labelled(text, control) {
  control.id = control.id || freshId('control');
  return make('div', { class: 'field' }, make('label', { for: control.id }, text), control);
}

// Options are texts or [value, text] pairs.
function select(options, value, onchange) {
  const node = make('select', { onchange: () => onchange(node.value) });
  for (const option of options) {
    const [key, text] = Array.isArray(option) ? option : [option, option];
    node.append(make('option', { value: key, selected: key === value }, text));
  }
  return node;
}

function section(id, title, ...children) {
  return make('section', { id, 'aria-labelledby': `${id}-title` }, make('h2', { id: `${id}-title` }, title), children);
}

const note = (...text) => make('p', { class: 'note' }, text);

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

function number(value, digits = 1) {
  if (!isNumber(value)) return DASH;
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace('-', '−');
}

const signed = (value, digits = 1) => (isNumber(value) && value > 0 ? '+' : '') + number(value, digits);

// 1,234 / 12.3 k / 4.5 M: for axes and columns of very different sizes.
function short(value) {
  if (!isNumber(value)) return DASH;
  const size = Math.abs(value);
  for (const [unit, name] of [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']]) {
    if (size >= unit) return `${trimmed(value / (name === 'k' ? 1e3 : unit))} ${name}`;
  }
  return trimmed(value);
}

function trimmed(value) {
  return Number(value.toPrecision(3)).toLocaleString('en-US', { maximumSignificantDigits: 3 }).replace('-', '−');
}

const unique = (values) => [...new Set(values)];
const plural = (count, word) => `${count.toLocaleString('en-US')} ${word}${count === 1 ? '' : 's'}`;
