// Paired differences to the anchor as a forest plot that is a table: a row a method, its interval drawn in the row.

function differencesOf(report, pair) {
  const rows = report.differences.filter(inPair(pair));
  if (rows.length === 0) return note(`This pair has no ${report.anchor} and another method on the same task, so there is nothing to compare.`);
  return unique(rows.map((row) => row.task)).map((task) => forest(report, task, rows.filter((row) => row.task === task)));
}

function forest() { return null; }
