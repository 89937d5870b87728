// The explorer's engine: unpacks the networks, decodes in the browser, and moves the Bokeh models.
// Shapes: P pixels, K labels, Z latent.

const Spectangle = (() => {
  "use strict";

  // ---- unpacking ---------------------------------------------------------------------------------------------------

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out.buffer;
  }

  async function inflate(text) {  // base64 of deflated bytes
    if (typeof DecompressionStream === "undefined") {
      note("This browser is too old for the explorer: it needs Chrome 80, Firefox 113 or Safari 16.4, or later.");
      throw new Error("no DecompressionStream");
    }
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  let arrays = null;  // the bytes of all arrays of the page

  function joined(at, count, width) {  // all first bytes come first, then all second bytes
    const planes = new Uint8Array(arrays, at, count * width), out = new Uint8Array(count * width);
    for (let b = 0, p = 0; b < width; b++) for (let i = 0; i < count; i++) out[i * width + b] = planes[p++];
    return out.buffer;
  }

  function unpack(packed) {  // in the page the numbers lie in its arrays, in an answer of the server they come along
    const count = packed.shape.reduce((a, b) => a * b, 1);
    const buffer = packed.data === undefined ? joined(packed.at, count, Number(packed.kind[1])) : bytes(packed.data);
    return packed.kind === "u2" ? stepped(new Uint16Array(buffer), packed) : new Float32Array(buffer);
  }

  const stepped = (steps, {low, step, masked}) => Float32Array.from(steps, (value) => (value === masked ? NaN : low + step * value));

  const unpackLayers = (layers) => layers.map((layer) => ({
    weight: unpack(layer.weight), bias: unpack(layer.bias), rows: layer.weight.shape[0], columns: layer.weight.shape[1],
  }));

  // ---- networks ----------------------------------------------------------------------------------------------------

  function forward(layers, input) {
    let h = input;
    layers.forEach((layer, l) => {
      const out = new Float32Array(layer.rows);
      for (let r = 0, w = 0; r < layer.rows; r++) {
        let sum = layer.bias[r];
        for (let c = 0; c < layer.columns; c++) sum += layer.weight[w++] * h[c];
        out[r] = l < layers.length - 1 && sum < 0 ? 0 : sum;
      }
      h = out;
    });
    return h;
  }

  const isTold = (run) => run.decoder[0].columns > run.Z;  // else conditioning=none: the decoder is told no labels

  function decode(run, z, labels) {  // latent [Z] and labels [K] in their units -> flux [P]
    const input = new Float32Array(run.decoder[0].columns);
    input.set(z);
    if (isTold(run)) {
      input.set(run.told, z.length + labels.length);  // no label is missing, attributes are not known
      labels.forEach((value, k) => { input[z.length + k] = (value - run.labelMean[k]) / run.labelStd[k]; });
    }
    return forward(run.decoder, input).map((value, p) => value * run.fluxScale[p] + run.fluxMean[p]);
  }

  function readLabels(run, z) {  // latent [Z] -> labels [K] in their units
    const labels = run.readout.flatMap((part) => [...readPart(part, z)]);
    return Float32Array.from(run.readoutOrder, (k) => labels[k]);
  }

  function readPart({layers, gamma, arrays}, z) {  // some of the labels, by a network and, where there are any, support vector machines
    const scaled = z.map((value, i) => (value - arrays.mean[i]) / arrays.scale[i]);
    let labels = forward(layers, scaled);
    if (gamma !== null) {
      const sum = Float64Array.from(arrays.offset), Z = z.length, K = sum.length;
      for (let s = 0; s < arrays.centres.length / Z; s++) {
        let square = 0;
        for (let i = 0; i < Z; i++) square += (scaled[i] - arrays.centres[s * Z + i]) ** 2;
        const weight = Math.exp(-gamma * square);
        for (let k = 0; k < K; k++) sum[k] += weight * arrays.weights[s * K + k];
      }
      labels = labels.map((value, k) => (value + sum[k]) / 2);
    }
    return labels.map((value, k) => value * arrays.label_scale[k] + arrays.label_mean[k]);
  }

  // ---- state -------------------------------------------------------------------------------------------------------

  const OWN = "#9fb3c8", TOUCHED = "#d9480f";
  let M = null, D = null, ready = false, quiet = false, held = -1;
  // of the star shown; read: whether a label is not in the catalogue, so that it was read from the latent; runs: {z, own}
  const state = {id: "", name: "", classes: {}, labels: [], ownLabels: [], read: [], flux: null, runs: []};

  async function start(models) {
    M = models;
    arrays = await inflate(document.getElementById("arrays").textContent);
    D = unpackAll(JSON.parse(document.getElementById("payload").textContent));
    M.spectrum.x_range.setv({start: D.wavelength[0], end: D.wavelength.at(-1), reset_start: D.wavelength[0], reset_end: D.wavelength.at(-1)});
    if (M.compare_plot_0) M.compare_plot_0.x_range.setv({start: D.wavelength[0], end: D.wavelength.at(-1), reset_start: D.wavelength[0], reset_end: D.wavelength.at(-1)});
    describe();
    drawMap();
    layLegend();
    showStar(0);
    ready = true;
    document.body.dataset.ready = "yes";
  }

  async function startSaved() {  // a saved page holds Bokeh deflated; what Bokeh is to draw waits for it
    run(new TextDecoder().decode(await inflate(document.getElementById("bokeh").textContent)));
    document.querySelectorAll('[data-after="bokeh"]').forEach((script) => run(script.textContent));
  }

  function run(code) {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
  }

  function unpackAll(p) {
    const K = p.labels.length;
    p.wavelength = unpack(p.wavelength);
    p.stars.flux = unpack(p.stars.flux);
    p.stars.labels = unpack(p.stars.labels);
    p.stars.read = unpack(p.stars.read);
    p.runs = p.runs.map((run) => ({
      ...run, latent: unpack(run.latent), Z: run.latent.shape[1], decoder: unpackLayers(run.decoder),
      readout: run.readout.map((part) => ({...part, layers: unpackLayers(part.layers), arrays: Object.fromEntries(Object.entries(part.arrays).map(([name, array]) => [name, unpack(array)]))})),
      maps: Object.fromEntries(Object.entries(run.maps).map(([name, map]) => [name, unpack(map)])),
      fluxMean: unpack(run.fluxMean), fluxScale: unpack(run.fluxScale), labelMean: unpack(run.labelMean), labelStd: unpack(run.labelStd),
    }));
    return {...p, K, P: p.wavelength.length, n: p.stars.id.length};
  }

  // ---- choosing a star ---------------------------------------------------------------------------------------------

  function showStar(i) {
    const P = D.P, inside = (i + 1) * P <= D.stars.flux.length;
    const star = {
      id: D.stars.id[i], name: D.stars.name[i] || "", labels: Array.from(D.stars.labels.subarray(i * D.K, (i + 1) * D.K)),
      classes: Object.fromEntries(Object.entries(D.stars.classes).map(([attribute, words]) => [attribute, words[i]])),
      read: Array.from(D.stars.read.subarray(i * D.K, (i + 1) * D.K), Boolean),
      flux: inside ? D.stars.flux.subarray(i * P, (i + 1) * P) : null,
      latents: D.runs.map((run) => run.latent.slice(i * run.Z, (i + 1) * run.Z)),
    };
    show(star);
    if (!inside) ask(star.id);
  }

  function show(star) {
    Object.assign(state, {...star, ownLabels: star.labels.slice(), labels: star.labels.slice()});
    state.runs = star.latents.map((z) => ({z: Float32Array.from(z), own: Float32Array.from(z)}));
    describeStar();
    if (!isCalled(M.search.value, star.id, star.name)) M.search.value = "";  // what was searched before is not what is shown
    note(star.flux ? "" : "The observed spectrum of this star is not in this page; the curves are decoded from its latent.");
    setSliders();
    scaleAxes();
    markPlace();
    redraw();
  }

  function picked(indices) {
    if (!ready || quiet || !indices.length) return;
    quiet = true;
    M.stars.selected.indices = [];
    quiet = false;
    showStar(indices[0]);
  }

  // equal names are written in several ways: HD 4 is HD000004 (star_facts.py has the same)
  const nameKey = (name) => name.toLowerCase().replace(/\s/g, "").replace(/(^|\D)0+(?=\d)/g, "$1");
  const isCalled = (words, id, name) => words.trim() === id || (Boolean(name) && nameKey(words) === nameKey(name));

  function search(text) {
    const id = text.trim();
    if (!id || !ready) return;
    const i = D.stars.id.includes(id) ? D.stars.id.indexOf(id) : D.stars.name.findIndex((name) => isCalled(id, "", name));
    if (i >= 0) showStar(i);
    else if (served()) ask(id);
    else note(`This page holds ${D.n} stars, and ${id} is not one of them; serve the run with spectangle explore to search the whole survey.`);
  }

  const served = () => document.body.dataset.mode === "served";

  function ask(id) {
    if (served()) M.request.data = {id: [id, String(Date.now())]};
  }

  function answered(data) {
    if (!data.json.length) return;
    const star = JSON.parse(data.json[0]);
    if (star.error) return note(star.error);
    const labels = Array.from(unpack(star.labels)), read = Array.from(unpack(star.read), Boolean);
    show({...star, labels, read, flux: unpack(star.flux), latents: star.latents.map(unpack)});
  }

  // ---- changing labels and latent ----------------------------------------------------------------------------------

  const sliders = () => D.labels.map((_, k) => M[`slider_${k}`]);

  function setSliders() {
    quiet = true;
    sliders().forEach((slider, k) => {
      const {low, high, step} = D.labels[k], value = state.labels[k];
      slider.setv({start: Math.min(low, Math.floor(value / step) * step), end: Math.max(high, Math.ceil(value / step) * step)});
      slider.value = value;
    });
    quiet = false;
  }

  function titleSliders() {  // a label that was read is marked until another is chosen
    sliders().forEach((slider, k) => { slider.title = D.labels[k].title + (state.read[k] && state.labels[k] === state.ownLabels[k] ? " (read)" : ""); });
  }

  function labelsMoved() {
    if (!ready || quiet) return;
    sliders().forEach((slider, k) => { state.labels[k] = slider.value; });
    redraw();
  }

  function dragged(event) {
    if (!ready) return;
    const run = state.runs[0], name = event.event_name;
    const [low, high] = [M.latent.y_range.start, M.latent.y_range.end];
    if (name !== "pan") held = Math.max(0, Math.min(run.z.length - 1, Math.round(event.x)));
    if (name === "panstart" || held < 0) return;
    run.z[held] = name === "doubletap" ? run.own[held] : Math.max(low, Math.min(high, event.y));
    redraw();
  }

  function pressed(name) {
    if (!ready) return;
    if (name === "other") showStar(Math.floor(Math.random() * Math.min(D.n, D.stars.flux.length / D.P)));
    if (name === "reset") {
      state.labels = state.ownLabels.slice();
      state.runs.forEach((run) => run.z.set(run.own));
      setSliders();
      redraw();
    }
    if (name === "save_csv") saveCsv();
    if (name === "save_png") savePng();
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------

  function redraw() {
    const started = performance.now();
    const [first] = curves(0), empty = new Float32Array(D.P).fill(NaN);
    M.spectra.data = {x: D.wavelength, observed: state.flux || empty, ...first};
    const reach = Math.max(M.difference.y_range.end / 1.1, first.difference.reduce((a, d) => Math.max(a, Math.abs(d)), 0));
    M.difference.y_range.setv({start: -1.1 * reach, end: 1.1 * reach});
    const {z, own} = state.runs[0], touched = Array.from(z, (value, i) => Math.abs(value - own[i]) > 1e-6);
    M.bars.data = {i: Array.from(z.keys()), z: Array.from(z), own: Array.from(own), colour: touched.map((t) => (t ? TOUCHED : OWN))};
    if (M.compare_0) [0, 1].forEach((r) => drawCompare(r));
    drawReading();
    titleSliders();
    state.milliseconds = performance.now() - started;
    document.body.dataset.milliseconds = state.milliseconds.toFixed(2);
  }

  function curves(r) {
    const run = D.runs[r], {z, own} = state.runs[r];
    const reconstructed = decode(run, own, state.ownLabels), changed = decode(run, z, state.labels);
    const difference = changed.map((value, p) => value - reconstructed[p]);
    return [{reconstructed, changed, difference}, Math.sqrt(difference.reduce((sum, d) => sum + d * d, 0) / difference.length)];
  }

  function drawCompare(r) {
    const [data, rms] = curves(r);
    M[`compare_${r}`].data = {x: D.wavelength, ...data};
    text(`change-${r}`, `rms change ${rms.toFixed(4)}`);
    if (r === 1) scaleDifference();
  }

  function scaleDifference() {
    const reach = Math.max(0.02, ...[0, 1].map((r) => M[`compare_${r}`].data.difference.reduce((a, d) => Math.max(a, Math.abs(d)), 0)));
    M.compare_difference_0.y_range.setv({start: -1.1 * reach, end: 1.1 * reach});
  }

  function scaleAxes() {
    const reconstructed = decode(D.runs[0], state.runs[0].own, state.ownLabels);
    const values = Array.from(state.flux || reconstructed).filter(Number.isFinite).concat(Array.from(reconstructed)).sort((a, b) => a - b);
    const low = values[Math.floor(0.002 * values.length)], high = values[Math.floor(0.998 * values.length)];
    const room = M.legend.orientation === "vertical" ? 0.42 : 0.24;  // for the legend
    const start = Math.min(low - room * (high - low), 0.6), end = high + 0.16 * (high - low);
    [M.spectrum, M.compare_plot_0].forEach((plot) => plot && plot.y_range.setv({start, end, reset_start: start, reset_end: end}));
    const height = (line) => high + (isLower(line) ? 0.025 : 0.085) * (high - low);
    M.lines.data = {...M.lines.data, y: D.lines.map(height), low: D.lines.map(() => start), name: namesWithRoom()};
    M.difference.y_range.setv({start: -0.1, end: 0.1});
    const reach = Math.max(3.5, ...Array.from(state.runs[0].own, Math.abs)) * 1.05;
    M.latent.y_range.setv({start: -reach, end: reach});
  }

  const isLower = ({species}) => species === "Ti I" || species === "Si I";  // names of lines stand in two rows, or they collide

  function namesWithRoom() {  // names of lines that lie on no other; the first ones are the strongest
    const {start, end} = M.spectrum.x_range, pixels = (M.spectrum.inner_width || 900) / (end - start), written = [];
    return D.lines.map((line) => {
      const x = line.wavelength * pixels, half = 2.8 * line.species.length, lower = isLower(line);
      const free = written.every((other) => other.lower !== lower || Math.abs(other.x - x) > other.half + half);
      if (free) written.push({x, half, lower});
      return free ? line.species : "";
    });
  }

  function layLegend() {
    const laid = window.innerWidth < 560 ? {orientation: "vertical", spacing: 0, padding: 4} : {orientation: "horizontal", spacing: 14, padding: 10};
    [M.legend, M.compare_legend_0, M.compare_legend_1].forEach((legend) => legend && legend.setv(laid));
  }

  function fit() {  // to the width of the plot, and to what it shows of the wavelengths
    if (!ready) return;
    const before = M.legend.orientation;
    layLegend();
    if (M.legend.orientation !== before) scaleAxes();
    M.lines.data = {...M.lines.data, name: namesWithRoom()};
  }

  function drawMap() {
    if (!D) return;
    const k = Math.max(0, D.labels.findIndex((label) => label.name === M.colour_by.value));
    const pca = M.method.active === 0, map = D.runs[0].maps[pca ? "pca" : "tsne"], [across, up] = axesOfKiel();
    const each = (of) => Float32Array.from({length: D.n}, (_, i) => of(i));
    const label = (i, c) => D.stars.labels[i * D.K + c], isRead = (i, c) => D.stars.read[i * D.K + c] > 0;
    const value = each((i) => (isRead(i, k) ? NaN : label(i, k)));  // what was read from the latent cannot show what the latent knows
    const sorted = value.filter(Number.isFinite).sort();
    M.mapper.setv({low: sorted[Math.floor(0.02 * sorted.length)] ?? 0, high: sorted[Math.floor(0.98 * (sorted.length - 1))] ?? 1});
    const read = (i) => readLabels(D.runs[0], D.runs[0].latent.slice(i * D.runs[0].Z, (i + 1) * D.runs[0].Z))[0];
    const hollow = each((i) => isRead(i, across) || (D.K > 1 && isRead(i, up)));
    M.stars.data = {
      x: each((i) => label(i, across)), y: each((i) => (D.K > 1 ? label(i, up) : read(i))),  // a label against itself says nothing
      mx: each((i) => map[2 * i]), my: each((i) => map[2 * i + 1]), value, fill: hollow.map((h) => (h ? 0 : 0.75)), line: hollow.map((h) => (h ? 0.9 : 0)),
      id: D.stars.id, name: D.stars.id.map((_, i) => D.stars.name[i] || ""),
      told: D.stars.id.map((_, i) => `${D.labels[k].symbol} ${worded(label(i, k), k)} ${D.labels[k].unit}${isRead(i, k) ? READ : ""}`),
    };
    M.map_across.axis_label = pca ? "first principal component of the latent" : "t-SNE, first coordinate";
    M.map_up.axis_label = pca ? "second principal component" : "t-SNE, second coordinate";
    describeMap(k, across, up, value.some(Number.isNaN), hollow.some(Boolean));
    if (ready) markPlace();
  }

  function axesOfKiel() {
    const names = D.labels.map((label) => label.name);
    return names.includes("teff") && names.includes("logg") ? [names.indexOf("teff"), names.indexOf("logg")] : [0, Math.min(1, D.K - 1)];
  }

  function markPlace() {
    const i = D.stars.id.indexOf(state.id), [a, b] = axesOfKiel(), map = D.runs[0].maps[M.method.active === 0 ? "pca" : "tsne"];
    const onMap = i >= 0 ? [map[2 * i], map[2 * i + 1]] : [NaN, NaN];
    M.place.data = {x: [state.ownLabels[a]], y: [D.K > 1 ? state.ownLabels[b] : readLabels(D.runs[0], state.runs[0].own)[0]], mx: [onMap[0]], my: [onMap[1]]};
  }

  // ---- words -------------------------------------------------------------------------------------------------------

  const AIMS = {"1": ["disentangled", "lambda above 0: the latent was to lose it"], "-1": ["entangled", "lambda below 0: the latent was to keep it"], "0": ["neutral", "lambda 0"]};
  const digits = (k) => Math.max(0, Math.round(-Math.log10(D.labels[k].step)));
  const READ = " (read, not in the catalogue)";
  const worded = (value, k) => value.toFixed(digits(k)).replace(/^-(0[.]?0*)$/, "$1");  // no minus before nothing
  const shown = (value) => (value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(2));

  function text(id, words) {
    const element = document.getElementById(id);
    if (element) element.textContent = words;
  }
  const fact = (id, words) => text(`fact-${id}`, words);
  const note = (words) => text("note", words);

  function describe() {
    D.runs.forEach((run, r) => {
      text(`run-${r}`, run.name);
      document.querySelectorAll(`[data-knows="${r}"]`).forEach((box) => { box.replaceChildren(...D.labels.map((label, k) => knowsRow(run, label, k, box.dataset.read === "yes")), ...run.attributes.map(attributeRow), verdict(run)); });
    });
    text("survey", `${D.survey.stars.toLocaleString("en")} stars (${D.survey.origin}); ${D.n} test stars here`);
    const deaf = D.runs.filter((run) => !isTold(run)), names = deaf.map((run) => run.name).join(" and ");
    if (deaf.length) text("told-nothing", `The decoder of ${names} is told no labels (a regular autoencoder): its spectrum follows the latent alone, and no slider moves it.`);
    if (deaf.length === D.runs.length) sliders().forEach((slider) => { slider.disabled = true; });
  }

  function describeMap(k, across, up, grey, hollow) {
    const names = D.labels.map((label) => label.symbol), unknown = `Grey: ${names[k]} is not in the catalogue.`;
    M.map_bar.title = D.labels[k].title;
    M.kiel_bar.title = D.labels[k].short;
    text("map-colour", D.labels[k].title);
    text("map-grey", grey ? unknown : "");
    const placed = D.K > 1 ? `${names[up]} against ${names[across]}` : `${names[0]} as read against the catalogue`;
    text("kiel-key", [`${placed}, coloured by ${names[k]}.`, hollow ? "Hollow: placed by what was read, not by the catalogue." : "", grey ? unknown : ""].join(" "));
  }

  const ownWords = (k) => `${worded(state.ownLabels[k], k)}${state.read[k] ? READ : ""}`;
  const classWords = () => Object.entries(state.classes).map(([attribute, word]) => `${attribute} ${word || "not in the catalogue"}`);

  function describeStar() {
    fact("star", state.name ? `${state.id} · ${state.name}` : state.id);
    const labels = D.labels.map((label, k) => [named("span", "", label), `\u00a0${ownWords(k)}`]);
    const parts = [...labels, ...classWords().map((words) => [words])];
    document.getElementById("fact-labels").replaceChildren(...parts.flatMap((part, i) => (i ? [" · ", ...part] : part)));
  }

  function named(tag, name, label) {  // a label as astronomers write it; its name in the survey is the tooltip
    const node = element(tag, name, label.symbol, label.name);
    if (label.name === "teff") node.innerHTML = "T<sub>eff</sub>";
    return node;
  }

  function element(tag, name, words = "", title = "") {
    const node = document.createElement(tag);
    node.className = name;
    node.textContent = words;
    if (title) node.title = title;
    return node;
  }

  function knowsRow(run, label, k, read) {
    const {r2, spectra, floor, excess, atMost, by} = run.knows[k], probed = by === "probe";
    const how = probed ? "all independent probes together, on stars that the encoder never saw" : "the downstream regressor";
    const bar = measure(r2, "R²", [spectra, `from the raw spectra, by the same ${probed ? "probes" : "regressor"}`], [floor, "from the kept labels alone, without the latent"]);
    bar.title = `R² of ${label.symbol} read from the latent by ${how}${beyond(excess, atMost)}`;
    const row = aimed(run.lambdas[k], named("span", "name", label), bar, r2, label.symbol.length > 9);
    if (read) {
      const cell = element("span", "reading");
      cell.id = `reading-${k}`;
      row.append(cell);
    }
    return row;
  }

  function attributeRow({name, lambda, accuracy, spectra, chance, excess, atMost}) {
    const bar = measure(accuracy, "balanced accuracy", [spectra, "from the raw spectra, by the same probes"], [chance, "by chance"]);
    bar.title = `Balanced accuracy of ${name} told from the latent by all independent probes together, on stars that the encoder never saw${beyond(excess, atMost)}`;
    return aimed(lambda, element("span", "name", name, "attribute: balanced accuracy, dotted tick: chance"), bar, accuracy, name.length > 9);
  }

  const beyond = (excess, atMost) => (Number.isFinite(excess) ? `; ${atMost ? "at most " : ""}R² ${shown(excess)} beyond the kept labels` : "");

  function aimed(lambda, name, bar, value, long) {  // a row: whose, what lambda asks for, how much is read, in numbers
    const aim = AIMS[String(Math.sign(lambda))], row = element("div", `knows ${aim[0]}${long ? " long" : ""}`);
    row.append(name, element("span", "aim", aim[0], aim[1]), bar, element("span", "r2", shown(value)));
    return row;
  }

  function measure(value, what, ...ticks) {
    const bar = element("div", "bar"), fill = element("div", "fill");
    fill.style.width = percent(value ?? 0);
    bar.append(fill, ...ticks.map(([at, from], i) => mark(i ? "tick floor" : "tick", at, `${from}: ${what} ${shown(at)}`)));
    return bar;
  }

  const percent = (share) => `${100 * Math.max(0, Math.min(1, share))}%`;

  function mark(name, at, title) {
    const tick = element("div", name, "", title);
    tick.style.left = percent(at ?? 0);
    tick.hidden = !Number.isFinite(at);
    return tick;
  }

  function verdict(run) {  // what was to be lost and can still be read must not look so; what the kept labels tell of it is no leak
    const leaks = ({r2, excess, spectra}) => (Number.isFinite(excess) ? excess > 0.1 : r2 > 0.5 * (spectra ?? 1));
    const labels = D.labels.filter((_, k) => run.lambdas[k] > 0 && leaks(run.knows[k])).map((label) => label.symbol);
    const left = [...labels, ...run.attributes.filter(({lambda, excess}) => lambda > 0 && excess > 0.1).map(({name}) => name)];
    const can = run.knows[0].atMost ? "may still be read (the errors of the kept labels are not known, so that this is an upper bound)" : "can still be read";
    return element("p", "verdict", left.length ? `${left.join(" and ")} ${left.length > 1 ? "were" : "was"} to be lost and ${can}.` : "");
  }

  function drawReading() {
    const values = readLabels(D.runs[0], state.runs[0].z);
    D.labels.forEach((label, k) => text(`reading-${k}`, `${worded(values[k], k)} ${label.unit}`));
  }

  // ---- saving ------------------------------------------------------------------------------------------------------

  function download(name, content, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], {type}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function csv() {
    const {x, observed, reconstructed, changed} = M.spectra.data;
    const labels = D.labels.map((label, k) => `${label.name}=${state.ownLabels[k].toFixed(4)}->${state.labels[k].toFixed(4)}`).join(" ");
    const read = D.labels.filter((_, k) => state.read[k]).map((label) => label.name).join(" ");
    const facts = [`source_id ${state.id}`, state.name && `name ${state.name}`, `run ${D.runs[0].name}`, labels, read && `read, not in the catalogue: ${read}`, ...classWords()];
    const rows = Array.from(x, (w, p) => [w.toFixed(4), ...[observed, reconstructed, changed].map((c) => (Number.isFinite(c[p]) ? c[p].toFixed(6) : ""))].join(","));
    return [`# ${facts.filter(Boolean).join("; ")}`, "wavelength_nm,observed,reconstructed,changed", ...rows, ""].join("\n");
  }

  const saveCsv = () => download(`spectra-${state.id}.csv`, csv(), "text/csv");

  function caption() {  // of a saved plot: which star and run, its labels and what became of them
    const labels = D.labels.map((label, k) => {
      const [own, now] = [state.ownLabels[k], state.labels[k]].map((value) => `${worded(value, k)} ${label.unit}`.trim());
      return `${label.symbol} ${own}${state.read[k] ? READ : ""}${own === now ? "" : ` → ${now}`}`;
    });
    const moved = state.runs[0].z.some((value, i) => value !== state.runs[0].own[i]) ? ["latent changed by hand"] : [];
    return [[`source_id ${state.id}`, ...(state.name ? [state.name] : []), `run ${D.runs[0].name}`], [...labels, ...classWords(), ...moved]];
  }

  function inLines(parts, fits) {  // parts joined to as few lines as fit
    return parts.reduce((lines, part) => {
      const longer = lines.length ? `${lines.at(-1)} · ${part}` : part;
      return lines.length && fits(longer) ? [...lines.slice(0, -1), longer] : [...lines, part];
    }, []);
  }

  function savedPlot() {  // the caption, the spectra, and the changes below them with the axis of wavelengths
    const views = [M.spectrum, M.difference].map((plot) => Bokeh.index.find_one_by_id(plot.id));
    const plots = views.map((view) => view.export("png").canvas), scale = plots[0].width / views[0].bbox.width;
    const out = document.createElement("canvas"), context = out.getContext("2d"), font = `${13 * scale}px sans-serif`;
    context.font = font;
    const lines = caption().flatMap((parts) => inLines(parts, (line) => context.measureText(line).width < plots[0].width - 24 * scale));
    const top = (12 + 18 * lines.length) * scale;
    [out.width, out.height] = [plots[0].width, top + plots[0].height + plots[1].height];
    context.fillStyle = "white";
    context.fillRect(0, 0, out.width, out.height);
    context.fillStyle = "#1d2733";
    context.font = font;  // a new size of the canvas forgets it
    lines.forEach((line, i) => context.fillText(line, 12 * scale, (20 + 18 * i) * scale));
    context.drawImage(plots[0], 0, top);
    context.drawImage(plots[1], 0, top + plots[0].height);
    return out;
  }

  const savePng = () => savedPlot().toBlob((blob) => download(`spectra-${state.id}.png`, blob, "image/png"));

  // ---- tabs --------------------------------------------------------------------------------------------------------

  function openTab(name) {
    document.querySelectorAll("[data-tab]").forEach((button) => button.setAttribute("aria-selected", String(button.dataset.tab === name)));
    document.querySelectorAll("[data-pane]").forEach((pane) => pane.classList.toggle("open", pane.dataset.pane === name));
    window.dispatchEvent(new Event("resize"));
  }

  return {start, startSaved, labelsMoved, picked, search, answered, dragged, pressed, drawMap, fit, openTab, verdict, attributeRow, state, csv, caption, savedPlot, decode: (r, z, labels) => decode(D.runs[r], z, labels), readLabels: (r, z) => readLabels(D.runs[r], z)};
})();
window.Spectangle = Spectangle;
