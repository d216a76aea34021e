// Paired differences from the anchor: a forest plot as a table, one row per method with its interval drawn in the row.

function differencesOf(report, pair) {
  const rows = report.differences.filter(inPair(pair));
  if (rows.length === 0) return note(`This pair has no ${report.anchor} and another method on the same task, so there is nothing to compare.`);
  const ends = rows.filter((row) => row.ci95).flatMap((row) => [...row.ci95, 0]);
  const reach = ends.length ? [Math.min(...ends), Math.max(...ends)] : [-1, 1];
  const isTuned = (method) => report.tuning.some((each) => inPair(pair)(each) && each.method === method);
  const unlike = rows.some((row) => isTuned(row.method) !== isTuned(report.anchor));
  return [
    unlike ? note(`Some of these methods are tuned and others, or ${report.anchor} itself, are not: that is not a fair comparison. `,
      'harness report --anchor names another method to compare with.') : null,
    note(`Method minus ${report.anchor} in points, on the same items. An interval that excludes 0 is drawn in colour. p by Holm is adjusted over all `,
      `${rows.length} rows of this pair. Min. detectable effect: the smallest true difference that such a comparison finds in 80 % of cases.`),
    unique(rows.map((row) => row.task)).map((task) => forest(report, task, rows.filter((row) => row.task === task), reach)),
  ];
}

function forest(report, task, rows, reach) {
  const known = rows.filter((row) => !row.reason);
  const tests = unique(known.map((row) => row.test.split(',')[0]));
  const items = unique(known.map((row) => row.items));
  const excluded = Math.max(0, ...known.map((row) => row.excluded));
  const about = known.length === 0 ? 'no comparison' : `${items.join(' or ')} shared items, ${tests.join('; ')}${excluded ? `; up to ${excluded} items left out` : ''}`;
  return make('div', { class: 'forest' }, sortableTable({
    caption: `${task} (${known[0]?.metric ?? 'no metric'}): ${about}.`,
    rows: [...rows].sort((a, b) => (b.difference ?? -Infinity) - (a.difference ?? -Infinity)),
    columns: [
      { label: 'Method', value: (row) => row.method },
      { label: 'Difference', value: (row) => row.difference, numeric: true, head: forestAxis(reach), cell: (row) => (row.reason ? make('span', { class: 'reason' }, row.reason) : forestLine(row, reach)) },
      { label: 'Points, 95 % interval', numeric: true, value: (row) => row.ci95?.[0], cell: (row) => (row.ci95 ? [make('span', { class: 'figure' }, signed(row.difference)), make('span', { class: 'interval' }, `${signed(row.ci95[0])} to ${signed(row.ci95[1])}`)] : DASH) },
      { label: 'p', numeric: true, value: (row) => row.p_value, cell: (row) => chance(row.p_value) },
      { label: 'p by Holm', numeric: true, value: (row) => row.p_holm, cell: (row) => chance(row.p_holm) },
      { label: 'Min. detectable effect', numeric: true, value: (row) => row.min_detectable_effect, cell: (row) => number(row.min_detectable_effect) },
      { label: 'Seeds', numeric: true, value: (row) => row.seeds },
    ],
  }));
}

const FOREST = window.matchMedia('(max-width: 46rem)').matches ? { width: 130, height: 16, ticks: 3 } : { width: 320, height: 16, ticks: 5 };

const forestScale = ([low, high]) => {
  const air = 0.06 * (high - low || 1);
  return scale([low - air, high + air], [0, FOREST.width]);
};

function forestAxis(reach) {
  const x = forestScale(reach);
  return draw('svg', { class: 'forest-axis', width: FOREST.width, height: FOREST.height, 'aria-hidden': 'true' },
    ticks(...reach, FOREST.ticks).map((value) => draw('text', { x: x(value), y: 12, 'text-anchor': 'middle' }, signed(value, value % 1 ? 1 : 0))));
}

function forestLine(row, reach) {
  const x = forestScale(reach);
  const [low, high] = row.ci95;
  const clear = low > 0 ? 'better' : high < 0 ? 'worse' : 'open';
  const middle = FOREST.height / 2;
  return draw(
    'svg', { class: `forest-line ${clear}`, width: FOREST.width, height: FOREST.height, 'aria-hidden': 'true' },
    ticks(...reach, FOREST.ticks).map((value) => draw('line', { class: 'grid', x1: x(value), x2: x(value), y1: 0, y2: FOREST.height })),
    draw('line', { class: 'zero', x1: x(0), x2: x(0), y1: 0, y2: FOREST.height }),
    draw('line', { class: 'reach', x1: x(low), x2: x(high), y1: middle, y2: middle }),
    draw('rect', { class: 'centre', x: x(row.difference) - 4, y: middle - 4, width: 8, height: 8 }),
  );
}

function chance(p) {
  if (!isNumber(p)) return DASH;
  return p < 0.001 ? '< 0.001' : number(p, 3);
}
