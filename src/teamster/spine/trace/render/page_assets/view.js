// Zoom and pan by d3-zoom: wheel, drag, pinch and double tap. Only time is zoomed; up and down scrolls the lanes.

const calm = matchMedia('(prefers-reduced-motion: reduce)');
const NARROWEST = 50;  // ns that the whole plot may show
const scroller = byId('scroller');
const picture = d3.select(canvas);
let aim = null;        // where an animation goes, so that the next key counts from there
let lastY = 0;

/** The left edge never lies before zero, nor the right one behind the end; and nothing moves up or down. */
function keepInside(transform) {
  const { k, x } = transform;
  const most = app.left * (1 - k);
  const least = plotRight() * (1 - k);
  return d3.zoomIdentity.translate(Math.min(most, Math.max(least, x)), 0).scale(k);
}

const zoom = d3.zoom()
  .extent(() => [[app.left, 0], [plotRight(), app.height]])
  .constrain(keepInside)
  .clickDistance(4)
  .tapDistance(10)
  .filter((event) => {
    if (event.type === 'wheel') return !event.shiftKey && !event.altKey && !overNames(event) && Math.abs(event.deltaY) >= Math.abs(event.deltaX);
    return event.type !== 'dblclick' && !event.button && !event.ctrlKey;
  })
  .on('start', ({ sourceEvent }) => { if (sourceEvent) { aim = null; lastY = heightOf(sourceEvent); } })
  .on('zoom', ({ transform, sourceEvent }) => {
    app.transform = transform;
    if (sourceEvent && /^(mousemove|touchmove)$/.test(sourceEvent.type)) follow(sourceEvent);
    redraw();
  })
  .on('end', () => canvas.classList.remove('dragging'));

function overNames(event) { return event.clientX - canvas.getBoundingClientRect().left < app.left; }

function heightOf(event) { return event.touches ? (event.touches.length === 1 ? event.touches[0].clientY : NaN) : event.clientY; }

/** A drag also scrolls the lanes; what is left of a finger's way at their end scrolls the page. */
function follow(event) {
  canvas.classList.add('dragging');
  hideTip();
  const y = heightOf(event);
  const way = lastY - y;
  lastY = y;
  if (!way) return;
  const before = scroller.scrollTop;
  scroller.scrollTop += way;
  if (event.touches) window.scrollBy(0, way - (scroller.scrollTop - before));
}

function setUpZoom() {
  limitZoom();
  picture.call(zoom).on('dblclick.zoom', null);
  canvas.addEventListener('wheel', (event) => {
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!sideways || event.altKey || overNames(event)) return;
    event.preventDefault();
    aim = null;
    const pixels = (Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : event.deltaY) * (event.deltaMode === 1 ? 20 : 1);
    picture.interrupt().call(zoom.translateBy, -pixels / app.transform.k, 0);
  }, { passive: false });
  scroller.addEventListener('scroll', redraw);
}

function limitZoom() { zoom.scaleExtent([1, Math.max(1, app.ns / NARROWEST)]); }

function transformFor(t0, t1) {
  const [least, most] = zoom.scaleExtent();
  const k = Math.min(most, Math.max(least, app.ns / Math.max(1e-3, t1 - t0)));
  const centre = (t0 + t1) / 2;
  const base = plotWidth() / app.ns;
  // The middle of the window comes to the middle of the plot.
  const x = app.left + plotWidth() / 2 - k * (app.left + centre * base);
  return keepInside(d3.zoomIdentity.translate(x, 0).scale(k));
}

/** Show the time from `t0` to `t1` (ns), by and by where the reader likes motion. */
function show(t0, t1, animate = true) {
  const to = transformFor(t0, t1);
  picture.interrupt();
  if (!animate || calm.matches) { aim = null; picture.call(zoom.transform, to); return; }
  aim = [t0, t1];
  picture.transition().duration(220).ease(d3.easeCubicOut).call(zoom.transform, to).on('end', () => { aim = null; });
}

function moveBy(share) {
  const [t0, t1] = aim || [viewBegin(), viewEnd()];
  const way = Math.max(-t0, Math.min(app.ns - t1, (t1 - t0) * share));
  show(t0 + way, t1 + way);
}

function zoomBy(factor) {
  const [t0, t1] = aim || [viewBegin(), viewEnd()];
  const width = Math.min(app.ns, Math.max(NARROWEST, (t1 - t0) / factor));
  const begin = Math.max(0, Math.min(app.ns - width, (t0 + t1) / 2 - width / 2));
  show(begin, begin + width);
}

function fit() { show(0, app.ns); }

/** Bring a span into sight: its lane, and a window in which it can be seen well. */
function reveal(group, i, close = false) {
  const long = Math.max(1, group.end[i] - group.begin[i]);
  const centre = (group.begin[i] + group.end[i]) / 2;
  const width = Math.min(app.ns, close ? long * 1.25 : Math.max(long * 8, Math.min(viewEnd() - viewBegin(), long * 25)));
  const begin = Math.max(0, Math.min(app.ns - width, centre - width / 2));
  const row = app.rows.find((each) => each.lane === laneOf(group, i));
  const y = top(row);
  if (y < app.fixed || y + row.height > app.height) scroller.scrollTop += y - (app.fixed + app.height - row.height) / 2;
  show(begin, begin + width);
}

// -------------------------------------------------------------------------------------------------------------- keys

const KEYS = {
  ArrowLeft: () => moveBy(-0.2), ArrowRight: () => moveBy(0.2),
  ArrowUp: () => scrollLanes(-60), ArrowDown: () => scrollLanes(60),
  '+': () => zoomBy(1.6), '=': () => zoomBy(1.6), '-': () => zoomBy(1 / 1.6), _: () => zoomBy(1 / 1.6),
  0: fit, Home: fit,
  '/': () => byId('find').focus(),
  n: () => nextFound(1), N: () => nextFound(-1),
  '[': () => pickNeighbour(-1), ']': () => pickNeighbour(1),
  t: () => switchTheme(), '?': () => byId('keys').showModal(),
  Escape: () => { clearFound(); pick(null); },
};

function scrollLanes(pixels) {
  if (app.fixed + app.content <= app.height + 1) return false;
  scroller.scrollTop += pixels;
  return true;
}

function setUpKeys() {
  document.addEventListener('keydown', (event) => {
    const inField = event.target.closest('input, textarea, dialog');
    const act = KEYS[event.key];
    if (!act || inField || event.ctrlKey || event.metaKey || event.altKey) return;
    if (act() !== false) event.preventDefault();
  });
}
