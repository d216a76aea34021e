// Learning curves: one quantity over the steps, one line per training; chosen methods in colour, the others behind them in grey.

const FAVOURITES = ['cross_entropy', 'loss'];
const CHOSEN_AT_FIRST = 6;

function learningCurves(report, pair) {
  const curves = report.curves.filter(inPair(pair));
  if (curves.length === 0) return note('The trainings of this pair have no log.');
  const methods = unique(curves.map((curve) => curve.method)).sort((a, b) => methodRank(a, report) - methodRank(b, report));
  const quantities = unique(curves.flatMap((curve) => Object.keys(curve.series)));
  const chosen = new Set(methods.slice(0, CHOSEN_AT_FIRST));
  let quantity = FAVOURITES.find((name) => quantities.includes(name)) ?? quantities[0];

  const plot = responsive((width) => curvePlot(curves, methods, chosen, quantity, width));
  const last = make('div');
  const refresh = () => { plot.redraw(); last.replaceChildren(lastValues(curves, quantity)); };
  const legend = make(
    'fieldset', { class: 'legend' }, make('legend', {}, 'Methods in colour'),
    methods.map((method, k) => {
      const box = make('input', { type: 'checkbox', checked: chosen.has(method), onchange: () => { box.checked ? chosen.add(method) : chosen.delete(method); refresh(); } });
      return make('label', {}, box, swatch(k), method);
    }),
  );
  refresh();
  return [
    make('div', { class: 'fields' }, labelled('Quantity', select(quantities, quantity, (value) => { quantity = value; refresh(); }))),
    note('As logged during training: the mean over the steps since the previous line. The loss of a method is the sum of its own terms. To compare methods, use ',
      make('code', {}, 'cross_entropy'), ' and ', make('code', {}, 'student_accuracy'), ' (both on the training labels), not ', make('code', {}, 'loss'), '.'),
    plot, legend,
    make('details', {}, make('summary', {}, 'The last logged values as a table'), last),
  ];
}

function swatch(k) {
  return draw('svg', { class: 'swatch', viewBox: '0 0 26 8', 'aria-hidden': 'true' },
    draw('line', { class: lineClass(k), x1: 1, x2: 25, y1: 4, y2: 4, 'stroke-dasharray': lineDash(k) }));
}

function curvePlot(curves, methods, chosen, quantity, width) {
  const height = width < 500 ? 260 : 340;
  const box = plotBox(width, height);
  const shown = curves.filter((curve) => curve.series[quantity]);
  const values = shown.flatMap((curve) => curve.series[quantity]).filter(isNumber);
  if (values.length === 0) return note(`Nothing of ${quantity} was logged.`);
  const xDomain = [0, Math.max(1, ...shown.map((curve) => curve.steps.at(-1)))];
  const yDomain = domain(values);
  const x = scale(xDomain, [box.left, box.right]);
  const y = scale(yDomain, [box.bottom, box.top]);
  const inFront = (curve) => chosen.has(curve.method);
  const line = (curve) => {
    const k = methods.indexOf(curve.method);
    const points = curve.steps.map((step, j) => [step, curve.series[quantity][j]]).filter(([, value]) => isNumber(value));
    const name = `${curve.method}, seed ${curve.seed}`;
    return draw('path', {
      class: inFront(curve) ? lineClass(k) : 'line behind',
      'stroke-dasharray': inFront(curve) ? lineDash(k) : 'none',
      d: points.map(([step, value], j) => `${j ? 'L' : 'M'}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join(''),
    }, draw('title', {}, name));
  };
  const behind = shown.filter((curve) => !inFront(curve));
  return draw(
    'svg', { width, height, role: 'img', 'aria-label': `${quantity} over training steps; the table below has the last values` },
    axes({ x, y, xDomain, yDomain, box, xLabel: 'step', yLabel: quantity }),
    behind.map(line), shown.filter(inFront).map(line),
  );
}

function lastValues(curves, quantity) {
  const last = (curve) => (curve.series[quantity] ?? []).findLast(isNumber);
  return sortableTable({
    caption: `Last logged ${quantity} of each training.`,
    rows: curves.filter((curve) => last(curve) !== undefined),
    columns: [
      { label: 'Method', value: (curve) => curve.method },
      { label: 'Seed', numeric: true, value: (curve) => curve.seed },
      { label: 'Step', numeric: true, value: (curve) => curve.steps.at(-1) },
      { label: quantity, numeric: true, value: last, cell: (curve) => number(last(curve), 4) },
    ],
  });
}
