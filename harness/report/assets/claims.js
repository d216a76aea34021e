// Published claims with their answers: for each a line in words, and a row for each of its tests with the interval drawn in it.

function claimsOf(claims) {
  const ends = claims.claims.flatMap((claim) => claim.tests.filter((test) => test.ci95).flatMap((test) => [...(test.ci_holm ?? []), ...test.ci95, 0, ...marginsOf(claim)]));
  const reach = ends.length ? [Math.min(...ends), Math.max(...ends)] : [-1, 1];
  return [
    note('Each test is the mean over the tasks of the difference on the same items, in points. p by Holm is corrected over the ', `${plural(claims.tests, 'test')} of the file; `,
      `below ${claims.level} a test has an answer. The thick line is the 95 % interval, the thin one that at the level of Holm’s correction, which decides. `,
      'A claim holds where all of its tests do, and fails where one fails. What is not significant is undecided.'),
    claims.claims.map((claim) => claimBlock(claim, reach)),
  ];
}

function claimBlock(claim, reach) {
  return make('div', { class: 'claim' },
    make('h3', {}, make('span', { class: `verdict ${claim.answer.replace(' ', '-')}` }, claim.answer), ' ', visible(claim.id)),
    make('p', { class: 'statement' }, visible(claim.statement)),
    note(visible(`${claim.says} (${claim.source})`)),
    claim.tests.length ? make('div', { class: 'forest' }, claimTests(claim, reach)) : null,
    claim.missing.length ? make('ul', { class: 'missing' }, claim.missing.map((text) => make('li', {}, visible(`no records: ${text}`)))) : null,
    claim.command ? make('p', {}, make('code', {}, visible(claim.command)), claim.matrix ? make('small', {}, ' ', visible(claim.matrix)) : null) : null,
  );
}

function claimTests(claim, reach) {
  return sortableTable({
    caption: 'Tests of this claim.',
    rows: claim.tests,
    columns: [
      { label: 'Compared', value: (test) => `${test.better} − ${test.than}`, cell: (test) => make('bdi', {}, visible(`${test.better} − ${test.than}`)) },
      { label: 'Pair', value: (test) => `${test.teacher} → ${test.student}`, cell: (test) => make('bdi', {}, visible(`${test.teacher} → ${test.student}`)) },
      { label: 'Answer', value: (test) => test.answer, cell: (test) => [make('span', { class: `verdict ${test.answer.replace(' ', '-')}` }, test.answer), test.reason ? make('span', { class: 'reason sub' }, visible(test.reason)) : null] },
      { label: 'Difference', value: (test) => test.difference, numeric: true, head: forestAxis(reach), cell: (test) => (test.ci95 ? claimLine(test, claim, reach) : DASH) },
      { label: 'Points, 95 % interval', numeric: true, value: (test) => test.difference, cell: (test) => (test.ci95 ? [make('span', { class: 'figure' }, signed(test.difference)), make('span', { class: 'interval' }, `${signed(test.ci95[0])} to ${signed(test.ci95[1])}`)] : DASH) },
      { label: 'p by Holm', numeric: true, value: (test) => test.p_holm, cell: (test) => chance(test.p_holm) },
      { label: 'Seeds', numeric: true, value: (test) => test.seeds?.[0], cell: (test) => (test.seeds ? unique(test.seeds).join('/') : DASH) },
      { label: 'Tasks', value: (test) => test.tasks.length, cell: (test) => visible(test.tasks.map((task) => `${task.task} ${signed(task.difference)} (${task.items} items)`).join(', ')) || DASH },
    ],
  });
}

// What an interval has to leave out, or of methods that are as good to lie between.
const marginsOf = (claim) => (claim.direction === 'as-good' ? [-claim.margin, claim.margin] : [claim.margin]);

function claimLine(test, claim, reach) {
  const x = forestScale(reach);
  const middle = FOREST.height / 2;
  const clear = { holds: 'better', fails: 'worse' }[test.answer] ?? 'open';
  const line = (name, [low, high]) => draw('line', { class: name, x1: x(low), x2: x(high), y1: middle, y2: middle });
  return draw(
    'svg', { class: `forest-line ${clear}`, width: FOREST.width, height: FOREST.height, 'aria-hidden': 'true' },
    ticks(...reach, FOREST.ticks).map((value) => draw('line', { class: 'grid', x1: x(value), x2: x(value), y1: 0, y2: FOREST.height })),
    marginsOf(claim).map((value) => draw('line', { class: 'zero', x1: x(value), x2: x(value), y1: 0, y2: FOREST.height })),
    test.ci_holm ? line('reach thin', test.ci_holm) : null,
    line('reach', test.ci95),
    draw('rect', { class: 'centre', x: x(test.difference) - 4, y: middle - 4, width: 8, height: 8 }),
  );
}
