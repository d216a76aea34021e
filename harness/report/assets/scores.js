// Scores: a grid of methods by tasks for the pair, and every metric as a row.

const inPair = (pair) => (row) => row.teacher === pair.teacher && row.student === pair.student;
const ofTeacher = (pair) => (row) => row.teacher === pair.teacher && row.student === null;

function scoreGrid(report, pair) {
  const rows = report.scores.filter((row) => inPair(pair)(row) || ofTeacher(pair)(row));
  const methods = unique(rows.map((row) => row.method)).sort((a, b) => methodRank(a, report) - methodRank(b, report));
  const lines = methods.map((method) => ({
    method,
    isTeacher: method === 'teacher',
    seeds: Math.max(...rows.filter((row) => row.method === method).map((row) => row.seeds)),
    tasks: Object.fromEntries(rows.filter((row) => row.method === method).map((row) => [row.task, row])),
  }));
  const taskColumns = report.tasks.map((task) => {
    const example = rows.find((row) => row.task === task && row.metric);
    const sizes = unique(rows.filter((row) => row.task === task && row.n).map((row) => row.n));
    const described = example ? `${example.metric}, n = ${sizes.join(' or ') || DASH}` : 'not evaluated';
    return {
      label: task,
      numeric: true,
      head: make('span', { class: 'sub' }, described),
      value: (line) => line.tasks[task]?.value,
      cell: (line) => scoreCell(line.tasks[task]),
    };
  });
  return make('div', { class: 'score-grid' }, sortableTable({
    caption: 'Score from 0 to 100 with its 95 % interval; with several seeds the mean ± the standard deviation of the seeds. †: not significantly different from the best (paired test on the same items, Holm-corrected, p ≥ 0.05).'
      + (report.tuning.some(inPair(pair)) ? ' Tuned methods are ranked among themselves, and default settings are not ranked.' : ''),
    search: 'Filter methods',
    rowClass: (line) => (line.isTeacher ? 'teacher' : null),
    rows: lines,
    columns: [
      { label: 'Method', value: (line) => line.method, cell: (line) => methodName(line.method, report) },
      { label: 'Seeds', numeric: true, value: (line) => (line.isTeacher ? null : line.seeds) },
      ...taskColumns,
    ],
  }));
}

function methodRank(method, report) {
  if (method === 'teacher') return -2;
  return method === report.anchor ? -1 : 0;
}

function methodName(method, report) {
  const tuned = report.tuning.some((each) => each.method === method);
  return [method, ' ', method === report.anchor ? make('span', { class: 'tag' }, 'anchor') : null, tuned ? make('span', { class: 'tag' }, 'tuned') : null];
}

function scoreCell(row) {
  if (!row) return DASH;
  if (!isNumber(row.value)) return make('span', { class: 'bad' }, row.failed ? 'failed' : 'no score');
  return [
    make('span', { class: 'figure' }, number(row.value), row.tied ? make('span', { title: 'not significantly different from the best' }, ' †') : null, row.best ? make('span', { class: 'tag' }, 'best') : null, isNumber(row.sd) ? make('small', {}, ` ± ${number(row.sd)}`) : null),
    make('span', { class: 'interval' }, row.ci95 ? `${number(row.ci95[0])} to ${number(row.ci95[1])}` : 'no interval'),
    scoreStrip(row),
  ];
}

// A line from 0 to 100 with the interval and the score on it; the text beside it says the same.
function scoreStrip(row) {
  const [low, high] = row.ci95 ?? [row.value, row.value];
  return draw(
    'svg', { class: 'strip', viewBox: '-2 0 104 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    draw('rect', { class: 'track', x: 0, y: 3.25, width: 100, height: 1.5 }),
    draw('rect', { class: 'span', x: low, y: 2, width: Math.max(0.5, high - low), height: 4 }),
    draw('rect', { class: 'mark', x: row.value - 0.8, y: 0.5, width: 1.6, height: 7 }),
  );
}

function allMetrics(report) {
  const pairName = (row) => (row.student === null ? `${row.teacher} (the teacher)` : `${row.teacher} → ${row.student}`);
  const share = (count) => (row) => (row.n && row.seeds ? (100 * count(row)) / (row.n * row.seeds) : null);
  const counted = (label, count) => ({
    label, numeric: true, value: count,
    cell: (row) => (count(row) ? `${number(count(row), 0)} (${number(share(count)(row))} %)` : '0'),
  });
  return sortableTable({
    caption: 'All metrics. Counts are of the completions of all seeds. Invalid: nothing could be extracted. Cut off: at the token limit.',
    filters: [
      { label: 'Pair', value: pairName },
      { label: 'Task', value: (row) => row.task },
      { label: 'Method', value: (row) => row.method },
    ],
    search: 'Search in all columns',
    rowClass: (row) => (row.student === null ? 'teacher' : null),
    rows: report.scores,
    columns: [
      { label: 'Method', value: (row) => row.method },
      { label: 'Pair', value: pairName },
      { label: 'Task', value: (row) => row.task, cell: (row) => `${row.task} v${row.task_version}` },
      { label: 'Metric', value: (row) => row.metric || null },
      { label: 'Score', numeric: true, value: (row) => row.value, cell: (row) => number(row.value, 2) },
      { label: '95 % interval', numeric: true, value: (row) => row.ci95?.[0], cell: (row) => (row.ci95 ? `${number(row.ci95[0])} to ${number(row.ci95[1])}` : DASH) },
      { label: 'SD of seeds', numeric: true, value: (row) => row.sd, cell: (row) => number(row.sd, 2) },
      { label: 'Each seed', numeric: true, value: (row) => row.by_seed.length, cell: (row) => row.by_seed.map(([seed, value]) => `${seed}: ${number(value)}`).join(', ') || DASH },
      { label: 'Samples', numeric: true, value: (row) => row.n },
      counted('Invalid', (row) => row.invalid),
      counted('Cut off', (row) => row.truncated),
      counted('Harness errors', (row) => row.harness_error),
      { label: 'Failed', numeric: true, value: (row) => row.failed },
      ...(report.scores.some((row) => row.reasoning) ? reasoningColumns() : []),
    ],
  });
}

// Of tasks in which a model reasons: what it generated for its scores.
function reasoningColumns() {
  const column = (label, name) => ({ label, numeric: true, value: (row) => row.reasoning?.[name] ?? null, cell: (row) => number(row.reasoning?.[name] ?? null) });
  return [
    column('Tokens per item', 'tokens'),
    column('Tokens per solved item', 'tokens_per_solved'),
    column('Reasoning never ended (%)', 'never_ended_share'),
    column('Reasoning cut off (%)', 'reasoning_cut_share'),
    column('Answers cut off (%)', 'answers_cut_share'),
  ];
}
