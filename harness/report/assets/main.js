// The page from the documents: head, bar with the pair, and the sections, made anew when another pair is chosen.

function start() {
  const report = readJson('document');
  // Id, title, its word in the bar, and what it shows of a pair.
  const sections = [
    ['scores', 'Scores', 'Scores', (pair) => scoreGrid(report, pair)],
    ['differences', `Difference to ${report.anchor}`, 'Differences', (pair) => differencesOf(report, pair)],
    ['costs', 'Quality and cost', 'Cost', (pair) => costs(report, pair)],
    ['curves', 'Learning curves', 'Curves', (pair) => learningCurves(report, pair)],
    ['alignment', 'Alignment of the tokenizers', 'Alignment', (pair) => alignment(report, pair)],
    ['answers', 'Answers side by side', 'Answers', (pair) => sampleBrowser(report, samplesOnce(), pair)],
  ];
  let samples = null;
  const samplesOnce = () => (samples ??= readJson('samples'));
  head(report);
  const contents = document.getElementById('content');
  const holders = sections.map(([id, title, link, content]) => ({ id, title, link, content, holder: make('div') }));
  const pairs = report.pairs;
  const show = (pair) => holders.forEach(({ holder, content }) => holder.replaceChildren(...[content(pair)].flat(Infinity).filter(Boolean)));
  contents.replaceChildren(...holders.map(({ id, title, holder }) => section(id, title, holder)), section('figures', 'All figures', allFigures(report)));
  bar(pairs, holders, show);
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
    warnings('Records that the run promises and does not hold yet', report.missing),
    warnings('Problems', report.problems),
    warnings('What to know when comparing', report.notes),
  ].filter(Boolean));
}

function warnings(title, list) {
  if (list.length === 0) return null;
  return make('details', { class: 'warnings' }, make('summary', {}, `${title}: ${list.length}`), make('ul', {}, list.map((text) => make('li', {}, visible(text)))));
}

function bar(pairs, holders, show) {
  const name = (pair) => `${pair.teacher} → ${pair.student}`;
  const links = [...holders.map(({ id, link }) => [id, link]), ['figures', 'All figures']];
  document.getElementById('bar').replaceChildren(
    pairs.length ? labelled('Pair', select(pairs.map((pair, k) => [String(k), name(pair)]), '0', (k) => show(pairs[Number(k)]))) : '',
    make('ul', {}, links.map(([id, title]) => make('li', {}, make('a', { href: `#${id}` }, title)))),
  );
}

function foot(report) {
  const versions = (environment) => Object.entries(environment.versions).filter(([, version]) => version).map(([name, version]) => `${name} ${version}`).join(', ');
  document.getElementById('foot').replaceChildren(
    make('details', {}, make('summary', {}, 'What it ran on'), make('ul', {}, report.environments.map((each) => make('li', {},
      `${plural(each.records, 'record')}: ${each.device}, ${plural(each.threads, 'thread')}, ${each.platform}, Python ${each.python}`,
      each.engine ? `, answers by ${each.engine}` : '', each.commit ? `, commit ${each.commit}${each.dirty ? ' with changes' : ''}` : '', `; ${versions(each)}`)))),
    make('p', {}, 'Made by harness report from the run’s own files.'),
  );
}

start();
