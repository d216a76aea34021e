// How far the students of the pair are from their teacher on the texts of their evaluations. A run without such records has no section.

function distancesOf(report, pair) {
  const ofPair = report.distances.filter((row) => inPair(pair)(row) || (row.student === null && row.teacher === pair.teacher));
  if (ofPair.length === 0) return note('No model of this pair was compared with its teacher.');
  const names = unique(ofPair.flatMap((row) => row.values.map((value) => value.name)));
  const found = (row, name) => row.values.find((value) => value.name === name);
  const spread = (value) => (value.ci95 ? `${number(value.ci95[0], 3)} to ${number(value.ci95[1], 3)}` : isNumber(value.sd) ? `± ${number(value.sd, 3)}` : null);
  const cell = (value) => {
    if (!value) return DASH;
    if (!isNumber(value.value)) return make('span', { title: value.reason }, DASH);
    return [number(value.value, 3), make('small', {}, ` ${spread(value) ?? ''}`)];
  };
  return sortableTable({
    caption: 'Means over tokens, in nats where they are no shares, with the 95 % interval over items; several seeds: mean ± standard deviation. A dash says why when pointed at. Lower bounds compare the most probable tokens of the teacher alone.',
    rows: [...ofPair].sort((a, b) => methodRank(a.method, report) - methodRank(b.method, report)),
    filters: [{ label: 'Task', value: (row) => row.task }, { label: 'Text', value: (row) => row.text }],
    columns: [
      { label: 'Method', value: (row) => row.method, cell: (row) => methodName(row.method, report) },
      { label: 'Task', value: (row) => row.task },
      { label: 'Text', value: (row) => row.text },
      { label: 'Compared', value: (row) => (row.form ? `${row.form === 'exact' ? '' : 'lower bound, '}${row.space.replace('_', ' ')}` : null) },
      ...names.map((name) => ({ label: name, numeric: true, value: (row) => found(row, name)?.value, cell: (row) => cell(found(row, name)) })),
      { label: 'length by teacher', numeric: true, value: (row) => row.length_by_teacher, cell: (row) => number(row.length_by_teacher, 3) },
    ],
  });
}
