// Builds the page from the documents: head, bar with the pair, and sections. The sections are rebuilt when another pair is chosen.

function start() {
  const report = readJson('document');
  // Id, title, name in the bar, and content for a pair.
  const sections = [
    ['scores', 'Scores', 'Scores', (pair) => scoreGrid(report, pair)],
    ['differences', `Difference to ${report.anchor}`, 'Differences', (pair) => differencesOf(report, pair)],
    ['costs', 'Quality and cost', 'Cost', (pair) => costs(report, pair)],
    ['curves', 'Learning curves', 'Curves', (pair) => learningCurves(report, pair)],
    ['alignment', 'Alignment of the tokenizers', 'Alignment', (pair) => alignment(report, pair)],
    ...(report.distances.length ? [['distances', 'Distances from the teacher', 'Distances', (pair) => distancesOf(report, pair)]] : []),
    ...(report.tuning.length ? [['tuning', 'Tuning', 'Tuning', (pair) => tuningOf(report, pair)]] : []),
    ['completions', 'Completions side by side', 'Completions', (pair) => sampleBrowser(report, samplesOnce(), pair)],
  ];
  let samples = null;
  const samplesOnce = () => (samples ??= readJson('samples'));
  head(report);
  const contents = document.getElementById('content');
  const holders = sections.map(([id, title, link, content]) => ({ id, title, link, content, holder: make('div') }));
  const pairs = report.pairs;
  const show = (pair) => holders.forEach(({ holder, content }) => holder.replaceChildren(...[content(pair)].flat(Infinity).filter(Boolean)));
  contents.replaceChildren(...holders.map(({ id, title, holder }) => section(id, title, holder)), section('metrics', 'All metrics', allMetrics(report)),
    ...(report.claims ? [section('claims', 'Published claims', claimsOf(report.claims))] : []));
  bar(pairs, holders, show, report.claims ? [['claims', 'Claims']] : []);
  if (pairs.length) show(pairs[0]);
  else holders.forEach(({ holder }) => holder.replaceChildren(note('No student was trained or evaluated in this run.')));
  foot(report);
}

function head(report) {
  const facts = [
    plural(report.pairs.length, 'pair'), plural(unique(report.scores.filter((row) => row.student !== null).map((row) => row.method)).length, 'method'),
    plural(report.tasks.length, 'task'), plural(report.seeds.length, 'seed'), plural(report.records, 'record'),
  ];
  document.getElementById('head').replaceChildren(...[
    make('h1', {}, report.title),
    make('p', { class: 'facts' }, facts.join(' · ')),
    warnings('Records that are still missing', report.missing),
    warnings('Problems', report.problems),
    warnings('Notes on comparisons', report.notes),
  ].filter(Boolean));
}

function warnings(title, list) {
  if (list.length === 0) return null;
  return make('details', { class: 'warnings' }, make('summary', {}, `${title}: ${list.length}`), make('ul', {}, list.map((text) => make('li', {}, visible(text)))));
}

function bar(pairs, holders, show, more) {
  const name = (pair) => `${pair.teacher} → ${pair.student}`;
  const links = [...holders.map(({ id, link }) => [id, link]), ['metrics', 'All metrics'], ...more];
  document.getElementById('bar').replaceChildren(
    pairs.length ? labelled('Pair', select(pairs.map((pair, k) => [String(k), name(pair)]), '0', (k) => show(pairs[Number(k)]))) : '',
    make('ul', {}, links.map(([id, title]) => make('li', {}, make('a', { href: `#${id}` }, title)))),
  );
}

function foot(report) {
  const versions = (environment) => Object.entries(environment.versions).filter(([, version]) => version).map(([name, version]) => `${name} ${version}`).join(', ');
  document.getElementById('foot').replaceChildren(
    make('details', {}, make('summary', {}, 'Environment'), make('ul', {}, report.environments.map((each) => make('li', {},
      `${plural(each.records, 'record')}: ${each.device}, ${plural(each.threads, 'thread')}, ${each.platform}, Python ${each.python}`,
      each.engine ? `, completions by ${each.engine}` : '', each.commit ? `, commit ${each.commit}${each.dirty ? ' with changes' : ''}` : '', `; ${versions(each)}`)))),
    make('p', {}, 'Made by harness report from the files of the run.'),
  );
}

start();
