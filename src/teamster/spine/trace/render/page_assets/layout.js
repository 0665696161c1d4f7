// What stands where on the canvas. Rows that are fixed keep their place at the top; the others scroll.

const AXIS = 28;
const PLOT_MARGIN = 14;

const app = {
  groups: [], ns: 1,            // ns: the longest group's, which the axis shows at first
  width: 0, height: 0, left: 0, // of the canvas, and of the column of names
  rows: [], fixed: 0, content: 0,
  transform: d3.zoomIdentity,
  shown: KINDS.map(() => true),
  pointer: null, hover: null, picked: null, found: null,
  colours: {}, fonts: {},
};

function plotWidth() { return Math.max(20, app.width - app.left - PLOT_MARGIN); }

function plotRight() { return app.left + plotWidth(); }

function perNs() { return app.transform.k * plotWidth() / app.ns; }

function timeAt(x) { return (x - app.left * app.transform.k - app.transform.x) / perNs(); }

function viewBegin() { return timeAt(app.left); }

function viewEnd() { return timeAt(plotRight()); }

/** A lane's heights: the row of what is not nested, and the thinner rows below it. */
const LANE_SIZES = [
  { main: 26, sub: 15, gap: 2, pad: 7 },
  { main: 20, sub: 13, gap: 1, pad: 4 },
  { main: 14, sub: 8, gap: 1, pad: 2 },
];

function laneHeight(lane, size) { return size.pad * 2 + size.main + Math.floor(lane.depth) * (size.sub + size.gap); }

function curveRows(group, size) {
  const rows = [{ type: 'work', group, height: size.work }];
  for (const curve of group.curves) rows.push({ type: 'curve', group, curve, height: size.curve });
  return rows;
}

function rowsOf(size, narrow) {
  const many = app.groups.length > 1;
  const curveSize = narrow || many ? { work: 44, curve: narrow ? 32 : 28 } : { work: 58, curve: 36 };
  const rows = [];
  for (const group of app.groups) {
    if (many) rows.push({ type: 'heading', group, height: 34 });
    rows.push(...curveRows(group, curveSize));
    for (const lane of group.lanes) rows.push({ type: 'lane', group, lane, size, height: laneHeight(lane, size) });
  }
  return rows;
}

function total(rows) { return rows.reduce((sum, row) => sum + row.height, 0); }

/** Of the sizes of lanes the largest that needs no scrolling; the smallest where all do. */
function chooseRows(room, narrow) {
  let rows = [];
  for (const size of LANE_SIZES.slice(narrow ? 1 : 0)) {
    rows = rowsOf(size, narrow);
    if (AXIS + total(rows) <= room) break;
  }
  return rows;
}

function place(rows, room) {
  const curves = rows.filter((row) => row.type !== 'lane' && row.type !== 'heading');
  // Curves stay in sight where they leave most of the room to the lanes.
  const keep = app.groups.length === 1 && AXIS + total(curves) <= room * 0.5;
  let fixed = AXIS;
  let y = 0;
  for (const row of rows) {
    row.fixed = keep && row.type !== 'lane';
    if (row.fixed) { row.y = fixed; fixed += row.height; } else { row.y = y; y += row.height; }
  }
  Object.assign(app, { rows, fixed, content: y });
}

/** A lane's row on the canvas. */
function top(row) { return row.fixed ? row.y : app.fixed + row.y - byId('scroller').scrollTop; }

/** Where a track's bars stand inside of its lane's row. */
function trackTop(row, depth) {
  const { main, sub, gap, pad } = row.size;
  if (depth === STRIP) return pad + main - trackHeight(row, depth);
  return depth <= 0 ? pad : pad + main + gap + (depth - 1) * (sub + gap);
}

function trackHeight(row, depth) {
  const { main, sub } = row.size;
  if (depth === STRIP) return Math.round(main * 0.35);
  return depth <= 0 ? main : sub;
}

/** Waits are a thin line: a lane that does nothing should not look busy. */
const WAIT_LINE = 3;

function trackWith(lane, i) {
  return lane.tracks.find(({ ids }) => ids[firstAbove(ids, i, 0, ids.length) - 1] === i);
}

/** The rectangle of a span on the canvas, in CSS pixels, not cut at the canvas's edges. */
function rectOf(group, i) {
  const lane = laneOf(group, i);
  const row = app.rows.find((each) => each.lane === lane);
  const track = trackWith(lane, i);
  const x = app.left + (group.begin[i] - viewBegin()) * perNs();
  const width = (group.end[i] - group.begin[i]) * perNs();
  let y = top(row) + trackTop(row, track.depth);
  let height = trackHeight(row, track.depth);
  if (track.depth === WAITING) { y += Math.round((height - WAIT_LINE) / 2); height = WAIT_LINE; }
  return { x, y, width, height };
}

function rowAt(y) {
  if (y < AXIS) return null;
  return app.rows.find((row) => {
    const from = top(row);
    return y >= from && y < from + row.height && (row.fixed || y >= app.fixed);
  }) || null;
}

/** Make the canvas as large as its place, and say again where everything stands. */
function measure() {
  const scroller = byId('scroller');
  const narrow = innerWidth <= 560;
  const room = narrow ? Math.max(300, innerHeight * 0.6) : Math.max(320, innerHeight - 150);
  const [begin, end] = app.width ? [viewBegin(), viewEnd()] : [0, app.ns];
  const rows = chooseRows(room, narrow);
  place(rows, room);
  // A little more than the window is better than a scrollbar inside of it.
  const all = app.fixed + app.content;
  app.height = Math.round(all <= room * 1.5 ? all : room);
  app.left = narrow ? 84 : 148;
  scroller.style.height = `${app.height}px`;
  byId('canvas').style.height = `${app.height}px`;
  byId('spacer').style.height = `${Math.max(0, app.fixed + app.content - app.height)}px`;
  app.width = scroller.clientWidth;
  const ratio = Math.max(1, window.devicePixelRatio || 1);
  byId('canvas').width = Math.round(app.width * ratio);
  byId('canvas').height = Math.round(app.height * ratio);
  app.ratio = ratio;
  return { begin, end };
}
