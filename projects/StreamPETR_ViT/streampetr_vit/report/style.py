"""The style sheet of the report."""

# The fonts are those of the reader's system: others would have to come over a network.
STYLE = """
:root { --ink:#1b2430; --soft:#5b6878; --faint:#8a95a3; --line:#e3e8ee; --page:#f5f7fa;
  --card:#fff; --accent:#1f5fd0; --warn:#8a5a00; --warn-bg:#fff6e0; --warn-line:#f1d48c; }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink); line-height:1.5; font-size:15px;
  font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1360px; margin:0 auto; padding:40px 28px 64px; }
h1 { font-size:30px; line-height:1.2; margin:0 0 6px; letter-spacing:-0.015em; }
h2 { font-size:20px; margin:44px 0 14px; letter-spacing:-0.01em; }
h3 { font-size:16px; margin:26px 0 8px; }
h4 { font-size:13px; margin:0 0 6px; font-weight:600; }
p { margin:0 0 10px; max-width:82ch; }
.soft { color:var(--soft); }
.notes { background:var(--warn-bg); border:1px solid var(--warn-line); border-radius:10px;
  color:var(--warn); margin:20px 0 0; padding:12px 18px; }
.notes ul { margin:0; padding-left:18px; } .notes li { margin:2px 0; max-width:110ch; }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:16px 18px; }
.tiles { display:grid; gap:12px; grid-template-columns:repeat(auto-fit,minmax(140px,1fr)); }
.tile b { display:block; font-size:27px; line-height:1.2; letter-spacing:-0.02em;
  font-variant-numeric:tabular-nums; font-weight:650; }
.tile span { font-weight:600; color:var(--soft); }
.tile small { display:block; color:var(--faint); line-height:1.35; margin-top:4px; }
.tile.main b { color:var(--accent); }
.facts { display:grid; gap:6px 28px; margin:18px 0 0;
  grid-template-columns:repeat(auto-fit,minmax(290px,1fr)); }
.facts div { display:flex; gap:10px; border-bottom:1px solid var(--line); padding:4px 0; }
.facts dt { color:var(--soft); min-width:110px; flex:none; }
.facts dd { margin:0; overflow-wrap:anywhere; }
.scroll { overflow-x:auto; padding:6px 10px; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th,td { text-align:right; padding:7px 10px; border-bottom:1px solid var(--line);
  white-space:nowrap; }
th { color:var(--soft); font-weight:600; font-size:13px; }
th:first-child,td:first-child { text-align:left; }
tbody tr:last-child td { border-bottom:0; }
td.best { font-weight:650; } td.none { color:var(--faint); }
tr.absent td { color:var(--faint); }
td.bar { min-width:130px; }
td.bar i { display:inline-block; vertical-align:middle; height:9px; border-radius:5px;
  width:var(--w); margin-right:8px; min-width:1px; }
td.bar div { display:grid; grid-template-columns:1fr 48px; align-items:center; text-align:left; }
td.bar div b { font-weight:500; text-align:right; }
.swatch { display:inline-block; width:11px; height:11px; border-radius:3px; margin-right:8px; }
.charts { display:grid; gap:14px; grid-template-columns:repeat(auto-fill,minmax(330px,1fr)); }
.charts.small { grid-template-columns:repeat(auto-fill,minmax(230px,1fr)); }
.chart { margin:0; background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:14px 14px 10px; }
svg { width:100%; height:auto; display:block; overflow:visible; }
svg text { font-size:11px; fill:var(--faint); }
.small svg text { font-size:15px; }
svg .grid { stroke:var(--line); stroke-width:1; }
svg .line { fill:none; stroke-width:1.8; stroke-linejoin:round; }
svg .raw { opacity:.22; stroke-width:1; }
.legend { display:flex; flex-wrap:wrap; gap:4px 14px; font-size:12.5px; color:var(--soft);
  min-height:18px; }
.small .legend { gap:0 9px; font-size:11.5px; } .small .legend i { margin-right:4px; }
.legend i { display:inline-block; width:12px; height:3px; border-radius:2px;
  vertical-align:middle; margin-right:6px; }
.picture { margin:0 0 18px; }
.picture img { display:block; width:100%; height:auto; border-radius:10px; background:#131820; }
figcaption { color:var(--soft); font-size:13.5px; margin-top:6px; }
details { margin-top:14px; } summary { cursor:pointer; font-weight:600; }
pre { overflow:auto; max-height:560px; font:12.5px/1.5 ui-monospace,Consolas,monospace; margin:0;
  white-space:pre; }
@media print { body { background:#fff; } details > * { display:block; } }
"""
