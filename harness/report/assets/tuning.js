// Tuning: what it gave, what was chosen, what the score goes with, and what it cost.

function tuningOf(report, pair) {
  const methods = report.tuning.filter(inPair(pair));
  if (methods.length === 0) return note('No method of this pair was tuned.');
  const gains = report.tuning_gains.filter(inPair(pair));
  return [
    note('Settings were tried on validation items, chosen by a rule that was fixed before, and trained anew with seeds that no trial had. ',
      `The rule: ${unique(methods.map((method) => method.rule)).join('; ')}.`),
    ...tuningGains(report, gains),
    chosenSettings(methods),
    make('h3', {}, 'Best validation score and what it cost'), bestAgainstCost(methods),
    make('h3', {}, 'Sensitivity'), sensitivityOf(methods),
    make('details', {}, make('summary', {}, 'All trials as a table'), trialTable(methods)),
  ];
}

function tuningGains(report, gains) {
  const ends = gains.filter((row) => row.ci95).flatMap((row) => [...row.ci95, 0]);
  if (gains.length === 0) return [];
  const reach = ends.length ? [Math.min(...ends), Math.max(...ends)] : [-1, 1];
  return [
    make('h3', {}, 'What tuning gave'),
    note('Tuned minus default setting, in points, on the same test items.'),
    ...unique(gains.map((row) => row.task)).map((task) => forest(report, task, gains.filter((row) => row.task === task), reach)),
  ];
}

function chosenSettings(methods) {
  const withBound = (method, text) => (method.uncounted ? `≥ ${text}` : text);
  return sortableTable({
    caption: 'What was chosen. Scores by the rule on validation items, in per cent of the teacher’s: that of the chosen setting is too high, because it is the best of all trials. Tokens and seconds are of training all trials, once for all seeds.',
    rows: methods,
    columns: [
      { label: 'Method', value: (method) => method.method },
      { label: 'Chosen setting', value: (method) => method.said },
      { label: 'Trial', numeric: true, value: (method) => method.chosen },
      { label: 'Default', numeric: true, value: (method) => method.default_score, cell: (method) => number(method.default_score) + (method.default_share < 1 ? ` at ${number(100 * method.default_share, 0)} % of the steps` : '') },
      { label: 'Chosen', numeric: true, value: (method) => method.score, cell: (method) => number(method.score) },
      { label: 'Budget', value: (method) => method.allowed },
      { label: 'Trials', numeric: true, value: (method) => method.trials },
      { label: 'Tokens', numeric: true, value: (method) => method.tokens, cell: (method) => withBound(method, number(method.tokens, 0)) },
      { label: 'Seconds', numeric: true, value: (method) => method.seconds, cell: (method) => withBound(method, number(method.seconds)) },
    ],
  });
}

function trialTable(methods) {
  const rows = methods.flatMap((method) => method.ranking.map((trial) => ({ ...trial, method: method.method, chosen: trial.trial === method.chosen })));
  return sortableTable({
    caption: 'Trial 0 is the default. Steps: the share of them that a trial had been trained for when it was compared last; scores of different shares do not compare.',
    filters: [{ label: 'Method', value: (row) => row.method }],
    rows: [...rows].sort((a, b) => a.method.localeCompare(b.method) || a.rank - b.rank),
    columns: [
      { label: 'Method', value: (row) => row.method, cell: (row) => [row.method, ' ', row.chosen ? make('span', { class: 'tag' }, 'chosen') : null] },
      { label: 'Rank', numeric: true, value: (row) => row.rank },
      { label: 'Trial', numeric: true, value: (row) => row.trial },
      { label: 'Setting', value: (row) => row.said },
      { label: 'Steps', numeric: true, value: (row) => row.share, cell: (row) => `${number(100 * row.share, 0)} %` },
      { label: 'Score', numeric: true, value: (row) => row.score, cell: (row) => number(row.score) },
      ...unique(rows.flatMap((row) => Object.keys(row.scores))).map((task) => ({ label: task, numeric: true, value: (row) => row.scores[task], cell: (row) => number(row.scores[task]) })),
      { label: 'Tokens', numeric: true, value: (row) => row.tokens, cell: (row) => number(row.tokens, 0) },
      { label: 'Seconds', numeric: true, value: (row) => row.seconds, cell: (row) => number(row.seconds) },
    ],
  });
}
