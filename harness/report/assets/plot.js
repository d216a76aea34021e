// What the plots share: scales, round ticks, axes, and drawing anew when the width changes.

// From values to pixels.
function scale([low, high], [from, to]) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

function ticks(low, high, count) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((size) => size >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step + 0);
  return found;
}

// 1, 2 and 5 times the powers of ten of a range above zero; powers alone where there are many.
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const k of [1, 2, 5]) found.push(k * 10 ** power);
  }
  const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  return inside.length > 7 ? inside.filter((value) => Number.isInteger(Math.round(1e6 * Math.log10(value)) / 1e6)) : inside;
}

// The range of the values with a little air, from zero if they are near it.
function domain(values, { zero = false } = {}) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (zero || (low > 0 && low < 0.3 * high)) low = Math.min(0, low);
  const air = 0.05 * (high - low || Math.abs(high) || 1);
  return [low === 0 ? 0 : low - air, high + air];
}

// Ticks of x are round numbers of the domain, or those that are given with their own text.
function axes({ x, y, xDomain, yDomain, box, xLabel, yLabel, format = short, xTicks = null, xFormat = format }) {
  xTicks ??= ticks(...xDomain, box.width < 420 ? 4 : 7);
  const yTicks = ticks(...yDomain, 5);
  return draw(
    'g', { class: 'axes', 'aria-hidden': 'true' },
    yTicks.map((value) => draw('line', { class: 'grid', x1: box.left, x2: box.right, y1: y(value), y2: y(value) })),
    yTicks.map((value) => draw('text', { x: box.left - 6, y: y(value) + 4, 'text-anchor': 'end' }, format(value))),
    draw('line', { class: 'base', x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    xTicks.map((value) => draw('text', { x: x(value), y: box.bottom + 16, 'text-anchor': 'middle' }, xFormat(value))),
    draw('text', { class: 'axis-label', x: box.right, y: box.bottom + 32, 'text-anchor': 'end' }, xLabel),
    draw('text', { class: 'axis-label', x: box.left - 40, y: 12 }, yLabel),
  );
}

const plotBox = (width, height) => ({ left: 48, right: width - 12, top: 24, bottom: height - 40, width, height });

// A block whose content `render(width)` is made anew when the block's width changes.
function responsive(render) {
  const block = make('div', { class: 'plot' });
  let before = 0;
  new ResizeObserver(() => {
    const width = Math.floor(block.clientWidth);
    if (width === before || width === 0) return;
    before = width;
    block.replaceChildren(render(width));
  }).observe(block);
  block.redraw = () => before && block.replaceChildren(render(before));
  return block;
}

// Colour and dash of the k-th line: the dash tells apart what shares a colour.
const COLOURS = 8;
const DASHES = ['none', '6 3', '2 3'];
const lineClass = (k) => `line colour-${k % COLOURS}`;
const lineDash = (k) => DASHES[Math.floor(k / COLOURS) % DASHES.length];
