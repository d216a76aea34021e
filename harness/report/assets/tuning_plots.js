// The plots of tuning: the best score so far against its cost, and the score of each trial against the value of each option.

const TRIAL_COSTS = [['tokens', 'Tokens of all trials so far'], ['seconds', 'Seconds of all trials so far']];

function bestAgainstCost(methods) {
  const known = TRIAL_COSTS.filter(([key]) => methods.some((method) => method.curve.some((point) => point[key] > 0)));
  if (known.length === 0) return note('No trial says what it cost.');
  let cost = known[0];
  const plot = responsive((width) => bestPlot(methods, cost, width));
  return make(
    'div', { class: 'best-so-far' },
    make('div', { class: 'fields' }, labelled('Cost of trials', select(known, cost[0], (key) => { cost = known.find(([name]) => name === key); plot.redraw(); }))),
    note('Trials in the order of their numbers, as if one ran after the other. Rings: the default; points: the chosen trial. ',
      'Trials that were dropped early count as cost alone. A trial that does not say its cost adds none.'),
    plot,
    make('div', { class: 'legend' }, methods.map((method, k) => make('label', {}, swatch(k), method.default))),
  );
}

function bestPlot(methods, [cost, label], width) {
  const height = width < 500 ? 260 : 340;
  const box = plotBox(width, height);
  const curves = methods.map((method) => ({ method, points: method.curve.filter((point) => isNumber(point.best)) })).filter(({ points }) => points.length);
  if (curves.length === 0) return note('No trial has a score.');
  const xDomain = domain(curves.flatMap(({ method }) => method.curve.map((point) => point[cost])), { zero: true });
  const yDomain = domain(curves.flatMap(({ points }) => points.map((point) => point.best)));
  const x = scale(xDomain, [box.left, box.right]);
  const y = scale(yDomain, [box.bottom, box.top]);
  const marks = (method, points, k) => points.filter((point) => isNumber(point.score) && (point.trial === 0 || point.trial === method.chosen)).map((point) => {
    const name = `${method.default}, trial ${point.trial}${point.trial === 0 ? ', the default' : ''}${point.trial === method.chosen ? ', chosen' : ''}: ${number(point.score)}`;
    const shape = `${point.trial === 0 ? 'ring ' : ''}${point.trial === method.chosen ? 'filled ' : ''}fill-${k % COLOURS} ${lineClass(k)}`;
    return draw('circle', { class: shape, cx: x(point[cost]), cy: y(point.score), r: point.trial === 0 ? 6 : 4, tabindex: 0, role: 'img', 'aria-label': name }, draw('title', {}, name));
  });
  return draw(
    'svg', { width, height, role: 'group', 'aria-label': `Best validation score so far against ${label.toLowerCase()}; the table of trials has the numbers` },
    axes({ x, y, xDomain, yDomain, box, xLabel: label, yLabel: 'best validation score' }),
    curves.map(({ method, points }) => {
      const k = methods.indexOf(method);
      const steps = points.map((point, j) => (j ? `H${x(point[cost]).toFixed(1)}V${y(point.best).toFixed(1)}` : `M${x(point[cost]).toFixed(1)} ${y(point.best).toFixed(1)}`)).join('');
      return draw('path', { class: lineClass(k), 'stroke-dasharray': lineDash(k), d: steps }, draw('title', {}, method.default));
    }),
    curves.map(({ method, points }) => marks(method, points, methods.indexOf(method))),
  );
}

function sensitivityOf(methods) {
  let method = methods[0];
  const plots = make('div', { class: 'multiples' });
  const refresh = () => plots.replaceChildren(...method.options.map((option) => optionPlot(method, option)));
  refresh();
  return make(
    'div', { class: 'sensitivity' },
    methods.length > 1 ? make('div', { class: 'fields' }, labelled('Tuned method', select(methods.map((each, k) => [String(k), each.default]), '0', (k) => { method = methods[Number(k)]; refresh(); }))) : null,
    note('The validation score of each trial at its last comparison, against the value of each option. Ring: the default. Filled: the chosen trial. ',
      'Pale: dropped early, so scored after fewer steps. Crosses at the bottom: no score, as when the loss was not finite. All options change at once, so a single one explains a part of the spread.'),
    method.options.length ? plots : note('Nothing of this method was tuned.'),
  );
}

function optionPlot(method, option) {
  return make('figure', {}, make('figcaption', {}, make('strong', {}, option.option), ` ${option.range}`, make('span', { class: 'sub' }, correlationText(option))), responsive((width) => optionScatter(method, option, width)));
}

function correlationText(option) {
  if (option.scale === 'values') return option.groups.map(([value, rank, count]) => `${value}: mean rank ${number(rank)} (${plural(count, 'trial')})`).join('; ');
  if (!isNumber(option.correlation)) return `no rank correlation, n = ${option.n}`;
  const interval = option.ci95 ? ` (${signed(option.ci95[0], 2)} to ${signed(option.ci95[1], 2)})` : '';
  return `rank correlation ${signed(option.correlation, 2)}${interval}, n = ${option.n}`;
}

function optionScatter(method, option, width) {
  const height = 220;
  const box = plotBox(width, height);
  const byTrial = new Map(method.ranking.map((trial) => [trial.trial, trial]));
  const trials = option.values.map(([trial, value]) => ({ ...byTrial.get(trial), value }));
  const scores = trials.map((trial) => trial.score).filter(isNumber);
  if (scores.length === 0) return note('No trial has a score.');
  const across = horizontal(option, trials, box);
  const yDomain = domain(scores);
  const y = scale(yDomain, [box.bottom, box.top]);
  const longest = Math.max(...trials.map((trial) => trial.share));
  const mark = (trial, j) => {
    const name = `trial ${trial.trial}${trial.trial === 0 ? ', the default' : ''}${trial.trial === method.chosen ? ', chosen' : ''}: ${option.option} ${trial.value}, ${isNumber(trial.score) ? `score ${number(trial.score)}` : 'no score'}${trial.share < longest ? `, after ${number(100 * trial.share, 0)} % of its steps` : ''}`;
    const left = across.x(trial.value, j);
    const about = { tabindex: 0, role: 'img', 'aria-label': name };
    if (!isNumber(trial.score)) return draw('path', { class: 'cross', d: `M${left - 4} ${box.bottom - 8}l8 8m0 -8l-8 8`, ...about }, draw('title', {}, name));
    const shape = ['trial', trial.trial === 0 && 'default', trial.trial === method.chosen && 'chosen', trial.share < longest && 'early'].filter(Boolean).join(' ');
    return draw('circle', { class: shape, cx: left, cy: y(trial.score), r: 5, ...about }, draw('title', {}, name));
  };
  return draw(
    'svg', { width, height, role: 'group', 'aria-label': `Validation score against ${option.option}` },
    axes({ x: across.place, y, xDomain: across.domain, yDomain, box, xLabel: option.scale === 'log' ? `${option.option}, by ratio` : option.option, yLabel: 'score', xTicks: across.ticks, xFormat: across.format }),
    trials.map(mark),
  );
}

// Where values are: numbers on a line or by ratio, others side by side, where trials of one value are a little apart.
function horizontal(option, trials, box) {
  const values = trials.map((trial) => trial.value);
  if (option.scale === 'values') {
    const names = unique(values.map(String));
    const place = scale([-0.5, names.length - 0.5], [box.left, box.right]);
    const apart = Math.min(9, (box.right - box.left) / names.length / (trials.length + 1));
    return { domain: [-0.5, names.length - 0.5], place, ticks: names.map((_, k) => k), format: (k) => names[k], x: (value, j) => place(names.indexOf(String(value))) + apart * (j - (trials.length - 1) / 2) };
  }
  if (option.scale === 'log') {
    const reach = domain(values.map(Math.log10));
    const log = scale(reach, [box.left, box.right]);
    const place = (value) => log(Math.log10(value));
    const found = logTicks(10 ** reach[0], 10 ** reach[1]);
    return { domain: reach, place, ticks: found, format: short, x: place };
  }
  const reach = domain(values);
  const place = scale(reach, [box.left, box.right]);
  return { domain: reach, place, ticks: ticks(...reach, 4), format: short, x: place };
}
