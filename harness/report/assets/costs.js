// The cost of trainings: a table, and scores against it.

const MIB = 2 ** 20;
const COSTS = [
  { key: 'train_seconds', label: 'Training (s)', digits: 1 },
  { key: 'teacher_seconds', label: 'Teacher (s)', digits: 1 },
  { key: 'signal_seconds', label: 'Teacher cache (s)', digits: 1 },
  { key: 'tokens', label: 'Tokens', digits: 0 },
  { key: 'tokens_per_second', label: 'Tokens/s', digits: 0 },
  { key: 'peak_memory', label: 'Peak memory (MiB)', digits: 0, unit: MIB },
  { key: 'peak_device_memory', label: 'Peak GPU memory (MiB)', digits: 0, unit: MIB },
  { key: 'distilled_share', label: 'Distilled (% of labels)', digits: 1, unit: 0.01 },
  { key: 'trial_seconds', label: 'Trials, of all seeds (s)', digits: 1 },
  { key: 'trial_tokens', label: 'Trials, of all seeds (tokens)', digits: 0 },
  { key: 'seconds_with_trials', label: 'One training and all trials (s)', digits: 1, plotOnly: true },
  { key: 'tokens_with_trials', label: 'One training and all trials (tokens)', digits: 0, plotOnly: true },
];
const inUnits = (cost, row) => (isNumber(row[cost.key]) ? row[cost.key] / (cost.unit ?? 1) : null);

function costs(report, pair) {
  const rows = report.costs.filter(inPair(pair));
  const known = COSTS.filter((cost) => rows.some((row) => isNumber(row[cost.key])));
  if (known.length === 0) return note('No training of this pair has measured costs in its record.');
  return [report.tasks.length ? qualityAgainstCost(report, pair, rows, known) : null, costTable(report, rows, known.filter((cost) => !cost.plotOnly))];
}

function costTable(report, rows, known) {
  return sortableTable({
    caption: 'Means over the seeds. Training time includes teacher time. The teacher cache is computed once for all trainings that read it and is not part of their times.'
      + (rows.some((row) => isNumber(row.trial_tokens)) ? ' Trials of tuning are of the method, once for all its seeds, and are not part of the other columns.' : ''),
    rows: [...rows].sort((a, b) => methodRank(a.method, report) - methodRank(b.method, report)),
    columns: [
      { label: 'Method', value: (row) => row.method, cell: (row) => methodName(row.method, report) },
      { label: 'Seeds', numeric: true, value: (row) => row.seeds },
      ...known.map((cost) => ({ label: cost.label, numeric: true, value: (row) => inUnits(cost, row), cell: (row) => number(inUnits(cost, row), cost.digits) })),
    ],
  });
}

function qualityAgainstCost(report, pair, rows, known) {
  let task = report.tasks[0];
  let cost = known[0];
  const plot = responsive((width) => scatter(report, pair, rows, task, cost, width));
  return make(
    'div', {},
    make(
      'div', { class: 'fields' },
      labelled('Task', select(report.tasks, task, (value) => { task = value; plot.redraw(); })),
      labelled('Cost', select(known.map((each) => [each.key, each.label]), cost.key, (value) => { cost = known.find((each) => each.key === value); plot.redraw(); })),
    ),
    plot,
  );
}

function scatter(report, pair, rows, task, cost, width) {
  const height = width < 500 ? 320 : 400;
  const box = plotBox(width, height);
  const points = rows.flatMap((row) => {
    const score = report.scores.find((each) => inPair(pair)(each) && each.method === row.method && each.task === task);
    const spent = inUnits(cost, row);
    return isNumber(spent) && isNumber(score?.value) ? [{ method: row.method, spent, score }] : [];
  });
  if (points.length === 0) return note(`No method has both a score on ${task} and this cost.`);
  const teacher = report.scores.find((row) => ofTeacher(pair)(row) && row.task === task);
  const xDomain = domain(points.map((point) => point.spent), { zero: true });
  const heights = points.flatMap((point) => [point.score.value, ...(point.score.ci95 ?? [])]);
  const yDomain = domain(isNumber(teacher?.value) ? [...heights, teacher.value] : heights);
  const x = scale(xDomain, [box.left, box.right]);
  const y = scale(yDomain, [box.bottom, box.top]);
  const placed = points.map((point) => ({ ...point, x: x(point.spent), y: y(point.score.value) }));
  const teacherLine = isNumber(teacher?.value) && [
    draw('line', { class: 'reference', x1: box.left, x2: box.right, y1: y(teacher.value), y2: y(teacher.value) }),
    draw('text', { class: 'label', x: box.right, y: y(teacher.value) - 5, 'text-anchor': 'end' }, `teacher ${number(teacher.value)}`),
  ];
  return draw(
    'svg', { width, height, role: 'group', 'aria-label': `Score on ${task} against ${cost.label}` },
    axes({ x, y, xDomain, yDomain, box, xLabel: cost.label, yLabel: `score on ${task}` }),
    teacherLine || null,
    placed.map(({ x: left, score }) => score.ci95 && draw('line', { class: 'whisker', x1: left, x2: left, y1: y(score.ci95[0]), y2: y(score.ci95[1]) })),
    placed.map((point) => draw(
      'circle', {
        class: point.method === report.anchor ? 'point anchor' : 'point', cx: point.x, cy: point.y, r: 5, tabindex: 0, role: 'img',
        'aria-label': `${point.method}: ${number(point.score.value)} at ${number(point.spent, cost.digits)} (${cost.label})`,
      },
      draw('title', {}, `${point.method}: ${number(point.score.value)} at ${number(point.spent, cost.digits)}`),
    )),
    spread(placed, box).map((label) => draw('text', { class: 'label', x: label.x, y: label.y, 'text-anchor': label.anchor, 'aria-hidden': 'true' }, label.text)),
  );
}

// A name beside each point, on a side with room where it covers no other name; left out if there is none.
function spread(points, box) {
  const taken = points.map((point) => ({ left: point.x - 6, right: point.x + 6, top: point.y - 6, bottom: point.y + 6 }));
  const overlaps = (a) => taken.some((b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom);
  const labels = [];
  for (const point of points) {
    const wide = 6.3 * point.method.length;
    const places = [-1, 1].flatMap((side) => [4, -8, 16, -20, 28].map((lower) => ({ side: -side, lower })));
    for (const { side, lower } of places) {
      const start = side > 0 ? point.x + 9 : point.x - 9 - wide;
      const area = { left: start, right: start + wide, top: point.y + lower - 9, bottom: point.y + lower + 3 };
      if (area.left < box.left || area.right > box.right || area.top < box.top || area.bottom > box.bottom || overlaps(area)) continue;
      taken.push(area);
      labels.push({ text: point.method, x: side > 0 ? point.x + 9 : point.x - 9, y: point.y + lower, anchor: side > 0 ? 'start' : 'end' });
      break;
    }
  }
  return labels;
}
