// The axis, the curves on top, marks, and the line under the pointer.

const TICK_ROOM = 105;

function ticks() {
  const t0 = viewBegin();
  const t1 = viewEnd();
  const wanted = Math.max(2, plotWidth() / TICK_ROOM);
  const [divisor] = TIME_UNITS.find(([least]) => (t1 - t0) / wanted >= least * 0.5) || TIME_UNITS[3];
  return { at: d3.ticks(t0 / divisor, t1 / divisor, wanted).map((each) => each * divisor), step: d3.tickStep(t0, t1, wanted) };
}

function drawAxis() {
  const { at, step } = ticks();
  pen.fillStyle = app.colours.surface;
  pen.fillRect(0, 0, app.width, AXIS);
  pen.font = app.fonts.soft;
  pen.textBaseline = 'middle';
  pen.strokeStyle = app.colours['line-strong'];
  pen.lineWidth = 1;
  for (const each of at) {
    const x = Math.round(xOf(each)) + 0.5;
    pen.beginPath();
    pen.moveTo(x, AXIS - 6);
    pen.lineTo(x, AXIS);
    pen.stroke();
    const text = showMoment(each, step);
    const half = textWidth(text) / 2;
    pen.fillStyle = app.colours['ink-soft'];
    pen.textAlign = 'center';
    pen.fillText(text, Math.min(Math.max(x, app.left + half), app.width - half - 4), AXIS / 2 - 1);
  }
  line(0, AXIS - 0.5, app.width, app.colours['line-strong']);
  for (const group of app.groups) for (const mark of group.marks) if (!mark.lane) drawFlag(mark);
}

function drawSeparators() {
  const x = Math.round(app.left) - 0.5;
  pen.strokeStyle = app.colours.line;
  pen.lineWidth = 1;
  for (const row of app.rows) {
    if (row.type === 'heading') continue;
    const from = Math.max(top(row), row.fixed ? 0 : app.fixed);
    if (from > app.height || top(row) + row.height < app.fixed && !row.fixed) continue;
    pen.beginPath();
    pen.moveTo(x, from);
    pen.lineTo(x, top(row) + row.height);
    pen.stroke();
  }
  if (app.fixed > AXIS) line(0, app.fixed - 0.5, app.width, app.colours['line-strong']);
}

/** The largest value that a curve's row has room for. */
function ceiling(row) {
  if (row.type === 'work' || row.curve.unit === 'share') return 1;
  if (row.curve.most === undefined) row.curve.most = row.curve.value.reduce((most, value) => Math.max(most, value), 0) * 1.1 || 1;
  return row.curve.most;
}

function drawCurve(row, y) {
  const floor = y + row.height - 5;
  const room = row.height - 11;
  const scaled = (value) => floor - Math.min(1, Math.max(0, value / ceiling(row))) * room;
  inPlot(() => {
    const outside = xOf(row.group.ns);
    line(app.left, floor + 0.5, Math.min(app.width, outside), app.colours.line);
    const points = row.type === 'work' ? workPoints(row.group) : curvePoints(row.curve, row.group.ns);
    if (points.length) strokeCurve(points, scaled, floor);
  });
  drawCurveName(row, y);
  line(0, y + row.height - 0.5, app.width, app.colours.line);
}

function strokeCurve(points, scaled, floor) {
  const path = new Path2D();
  points.forEach(([x, value], k) => (k ? path.lineTo(x, scaled(value)) : path.moveTo(x, scaled(value))));
  const area = new Path2D(path);
  area.lineTo(points[points.length - 1][0], floor);
  area.lineTo(points[0][0], floor);
  pen.fillStyle = app.colours.curve;
  pen.globalAlpha = 0.16;
  pen.fill(area);
  pen.globalAlpha = 1;
  pen.strokeStyle = app.colours.curve;
  pen.lineWidth = 1.25;
  pen.lineJoin = 'round';
  pen.stroke(path);
}

/** Utilization, a value for each two pixels; where a pixel is shorter than a task, steps that show each. */
function workPoints(group) {
  const points = [];
  const step = 2;
  for (let x = app.left; x < app.width; x += step) {
    const t0 = timeAt(x);
    if (t0 >= group.ns) break;
    points.push([x + step / 2, utilization(group, t0, Math.min(group.ns, timeAt(x + step)))]);
  }
  return points;
}

/** Where a pixel holds several points, the lowest and the highest of them; a value holds until the next. */
function curvePoints(curve, until) {
  const n = curve.at.length;
  const first = Math.max(0, firstAbove(curve.at, viewBegin(), 0, n) - 1);
  const stop = Math.min(n, firstAbove(curve.at, timeAt(app.width), 0, n) + 1);
  const points = [];
  for (let k = first; k < stop;) {
    const column = Math.floor(xOf(curve.at[k]));
    let low = curve.value[k];
    let high = low;
    const begin = xOf(curve.at[k]);
    for (k += 1; k < stop && Math.floor(xOf(curve.at[k])) === column; k += 1) {
      low = Math.min(low, curve.value[k]);
      high = Math.max(high, curve.value[k]);
    }
    points.push([begin, low]);
    if (high > low) points.push([begin + 0.5, high]);
  }
  if (points.length && stop === n) points.push([Math.min(xOf(until), app.width), curve.value[n - 1]]);
  return points;
}

function curveText(row, t) {
  if (row.type === 'work') {
    const half = 1 / perNs();
    return showShare(t === null ? utilization(row.group, Math.max(0, viewBegin()), Math.min(row.group.ns, viewEnd()))
      : utilization(row.group, Math.max(0, t - half), Math.min(row.group.ns, t + half)));
  }
  const value = t === null ? row.curve.value[row.curve.value.length - 1] : valueAt(row.curve, t);
  return value === undefined || Number.isNaN(value) ? '' : showValue(value, row.curve.unit);
}

function drawCurveName(row, y) {
  const hovered = app.pointer && app.pointer.x >= app.left ? timeAt(app.pointer.x) : null;
  const t = hovered !== null && hovered >= 0 && hovered <= row.group.ns ? hovered : null;
  const label = row.type === 'work' ? 'utilization' : row.curve.label;
  const value = curveText(row, t);
  const narrow = app.left < 120;
  pen.textBaseline = 'middle';
  pen.font = app.fonts.soft;
  pen.fillStyle = app.colours['ink-soft'];
  pen.textAlign = 'left';
  const middle = y + row.height / 2;
  pen.fillText(shortened(label, app.left - 18 - (narrow ? 0 : textWidth(value) + 12)), 12, narrow ? middle - 7 : middle);
  pen.fillStyle = t === null ? app.colours['ink-soft'] : app.colours.ink;
  pen.textAlign = narrow ? 'left' : 'right';
  pen.fillText(value, narrow ? 12 : app.left - 10, narrow ? middle + 7 : middle);
}

// ------------------------------------------------------------------------------------------------------------- marks

function isTrouble(mark) { return /\b(died|killed|SIG[A-Z]+|timed? ?out|lost|failed|error|crash)/i.test(mark.text); }

function markColour(mark) { return app.colours[isTrouble(mark) ? 'trouble' : 'mark']; }

/** From where to where a mark's line goes. */
function markSpan(group, mark) {
  const rows = app.rows.filter((row) => row.group === group && row.type === 'lane' && (!mark.lane || row.lane.label === mark.lane));
  if (!rows.length) return null;
  return [top(rows[0]), top(rows[rows.length - 1]) + rows[rows.length - 1].height];
}

function drawMarks() {
  inPlot(() => {
    for (const group of app.groups) {
      for (const mark of group.marks) {
        const x = Math.round(xOf(mark.at)) + (mark.lane ? 0 : 0.5);  // so that each line fills whole pixels
        const span = markSpan(group, mark);
        if (!span || x < app.left - 6 || x > app.width + 6) continue;
        pen.strokeStyle = pen.fillStyle = markColour(mark);
        pen.lineWidth = mark.lane ? 2 : 1;
        pen.setLineDash(mark.lane ? [] : [4, 3]);
        pen.beginPath();
        pen.moveTo(x, span[0]);
        pen.lineTo(x, span[1]);
        pen.stroke();
        pen.setLineDash([]);
        if (mark.lane) triangle(x, span[0]);
        else if (app.groups.length > 1) triangle(x, span[0]);
      }
    }
  });
}

function triangle(x, y) {
  pen.beginPath();
  pen.moveTo(x - 5, y);
  pen.lineTo(x + 5, y);
  pen.lineTo(x, y + 7);
  pen.fill();
}

/** In the axis, where a mark is for all lanes of the only timeline. */
function drawFlag(mark) {
  const x = Math.round(xOf(mark.at)) + 0.5;
  if (app.groups.length > 1 || x < app.left - 1 || x > app.width) return;
  pen.fillStyle = markColour(mark);
  triangle(x, AXIS - 8);
}

function markAt(x, y) {
  let best = null;
  for (const group of app.groups) {
    for (const mark of group.marks) {
      const away = Math.abs(xOf(mark.at) - x);
      const span = markSpan(group, mark);
      const inside = span && y >= span[0] && y <= span[1] && y >= app.fixed;
      const flag = !mark.lane && app.groups.length === 1 && y < app.fixed;
      if (away <= 5 && (inside || flag) && (!best || away < best.away)) best = { away, mark, group };
    }
  }
  return best;
}

function drawCrosshair() {
  if (!app.pointer || app.pointer.x < app.left || app.pointer.x > plotRight()) return;
  const x = Math.round(app.pointer.x) + 0.5;
  pen.strokeStyle = app.colours['ink-soft'];
  pen.globalAlpha = 0.6;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x, AXIS);
  pen.lineTo(x, app.height);
  pen.stroke();
  pen.globalAlpha = 1;
  const text = showMoment(timeAt(app.pointer.x), 1 / perNs());
  pen.font = app.fonts.soft;
  const width = textWidth(text) + 14;
  const left = Math.min(Math.max(x - width / 2, app.left), app.width - width - 2);
  pen.fillStyle = app.colours.surface;
  pen.fillRect(left - 8, 2, width + 16, 19);
  pen.fillStyle = app.colours.ink;
  pen.beginPath();
  pen.roundRect(left, 3, width, 19, 5);
  pen.fill();
  pen.fillStyle = app.colours.surface;
  pen.textAlign = 'center';
  pen.textBaseline = 'middle';
  pen.fillText(text, left + width / 2, 13);
}
