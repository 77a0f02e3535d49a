"""The one block of CSS of a report. Colours are the variables of ``drawing.css_colours``."""

STYLE = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:76rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.35rem;margin:3rem 0 .75rem;padding-top:1rem;border-top:2px solid var(--line)}
h3{font-size:1.05rem;margin:1.75rem 0 .5rem}
h4{font-size:1rem;margin:1.25rem 0 .25rem}
p{max-width:46rem;margin:.5rem 0}
.lead{font-size:1.12rem}
.quiet,figcaption,.pic{color:var(--muted);font-size:.875rem}
code{font:.875em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.missing{border:1px solid var(--line);border-left:4px solid var(--s2);border-radius:4px;
padding:.5rem 1rem;margin:1rem 0;max-width:46rem}
.missing ul{margin:.25rem 0;padding-left:1.1rem}
.figures{display:grid;gap:1.75rem 2.5rem;align-items:start;
grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr))}
figure{margin:0;min-width:0}
figure h3,figure h4{margin:0 0 .4rem}
figure>svg{display:block;width:100%;height:auto;max-width:38rem}
figure>svg text{font-family:inherit!important}
figcaption{max-width:38rem;margin-top:.4rem}
.wide{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .9rem .3rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--line)}
thead th{color:var(--muted);font-weight:600;vertical-align:bottom}
tbody th{font-weight:500}
.num{text-align:right}
td.num{white-space:nowrap}
.facts th{color:var(--muted);white-space:nowrap}
.facts td,.settings td{overflow-wrap:anywhere}
.settings th{white-space:nowrap}
.settings td{min-width:8rem}
details{margin:.75rem 0}
summary{cursor:pointer;color:var(--s1)}
.pics{display:flex;flex-wrap:wrap;gap:.75rem .6rem;margin:.25rem 0 .75rem;padding:0;list-style:none}
.pic{width:5.2rem;line-height:1.25;font-size:.78rem;overflow-wrap:anywhere}
.pic img{display:block;width:5.2rem;height:5.2rem;object-fit:contain;image-rendering:pixelated;
background:var(--line);border-radius:3px;margin-bottom:.25rem}
@media print{details{display:none}}
"""
