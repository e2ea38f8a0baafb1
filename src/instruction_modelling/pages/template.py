"""The page of a report: its style and its HTML, filled in by report_page. Values are escaped by Jinja's
autoescape."""

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --card: #f5f6f8; --ink: #1b1d21; --soft: #565c66;
  --line: #d5d9df; --link: #0b5cad; --note: #fff4d6; --note-line: #b98900; --shade: #0003; }
@media (prefers-color-scheme: dark) { :root { --ground: #14161a; --card: #1d2026; --ink: #e8eaee; --soft: #a6adb8;
  --line: #363b44; --link: #7db7f5; --note: #332b12; --note-line: #d3a52c; --shade: #fff4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55; overflow-wrap: anywhere;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.5rem, 1.1rem + 2vw, 2.3rem); line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.45rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.12rem; margin: 2rem 0 .5rem; }
p, ul { max-width: 46rem; }
a { color: var(--link); }
.soft, figcaption p, caption { color: var(--soft); font-size: .9rem; }
.note { border-left: .35rem solid var(--note-line); background: var(--note); padding: .75rem 1rem; margin: 1rem 0;
  max-width: 46rem; }
.note p, .note ul { margin: 0; } .note ul { padding-left: 1.1rem; }
.answer { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem 1.25rem;
  margin: 1rem 0; max-width: 46rem; }
.answer h2 { border: 0; margin: 0; padding: 0; font-size: 1.05rem; }
.answer p { margin: .5rem 0 0; }
.question { font-size: 1.1rem; }
.contents { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; }
/* A shadow at an edge says that the table goes on there. */
.scroll { overflow-x: auto; margin: 1rem 0; background:
    linear-gradient(to right, var(--ground) 1rem, transparent) left / 2rem 100% no-repeat local,
    linear-gradient(to left, var(--ground) 1rem, transparent) right / 2rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / .8rem 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / .8rem 100% no-repeat scroll; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
table { overflow-wrap: break-word; border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .95rem; }
caption { text-align: left; padding-bottom: .6rem; }
caption span { display: block; position: sticky; left: 0; max-width: min(46rem, 100vw - 2.5rem); }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; text-align: left; }
thead th { border-bottom: 2px solid var(--ink); white-space: nowrap; }
th[scope=row] { font-weight: 500; position: sticky; left: 0; background: var(--ground); min-width: 7rem; }
td.value { white-space: nowrap; } td small, th small { display: block; color: var(--soft); font-weight: 400; }
td .clear, td .soft { font-size: .85rem; display: block; min-width: 7rem; }
td.path { overflow-wrap: anywhere; min-width: 8rem; }
.missing { color: var(--soft); font-style: italic; }
.clear { font-weight: 650; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin-right: .4em; }
.figures { columns: 25rem 2; column-gap: 1.25rem; }
figure { margin: 0 0 1.25rem; break-inside: avoid; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
figcaption h4 { margin: 0; font-size: 1rem; } figcaption p { margin: .25rem 0 .75rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 40rem; stroke-linejoin: round; stroke-linecap: butt; }
.sample { border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; padding: 1rem; }
.sample h4 { margin: 0 0 .5rem; font-size: .95rem; }
.texts { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr));
  margin-top: .75rem; }
.text { background: var(--card); border-top: .25rem solid var(--line); padding: .5rem .75rem; min-width: 0; }
.reference { margin: .75rem 0 0; } .reference h5, .text h5 { margin: 0; font-size: .85rem; }
.verbatim { white-space: pre-wrap; margin: .35rem 0 0; font: inherit; }
details { margin: .75rem 0; } summary { cursor: pointer; color: var(--link); }
pre.command { background: var(--card); border: 1px solid var(--line); padding: .75rem; white-space: pre-wrap;
  font-size: .85rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3rem 1rem; max-width: 60rem; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; }
@media (max-width: 40rem) { main { padding: .75rem .9rem 3rem; } th, td { padding: .35rem .4rem; }
  table { font-size: .85rem; } figure, .sample { padding: .6rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
@media print { :root { --ground: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --link: #000;
    --note: #fff; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; } figure, tr, .answer { break-inside: avoid; }
  .scroll { background: none; }
  h2, h3, h4 { break-after: avoid; } .scroll { overflow: visible; } nav, details { display: none; } }
"""

TEMPLATE = """
{%- macro picture(p) %}
<figure>
<figcaption><h4>{{ p.title }}</h4><p>{{ p.guide }}</p></figcaption>
{{ p.svg | safe }}
</figure>
{%- endmacro -%}
{%- macro cell(text) -%}
<td class="value{{ ' missing' if text.value == 'missing' }}">{{ text.value }}{% if text.spread %}<small>{{ text.spread }}</small>{% endif %}</td>
{%- endmacro -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
{%- if note %}
<div class="note" role="note"><p>{{ note }}</p></div>
{%- endif %}
<p class="question">{{ question }}</p>
<section class="answer" aria-labelledby="answer">
<h2 id="answer">The answer of {{ "these runs" if runs_count > 1 else "this run" }}</h2>
{%- for set in sets %}
<p>{{ set.answer | join(" ") }}</p>
{%- endfor %}
</section>
{%- if sets | length > 1 %}
<nav aria-label="Contents"><ul class="contents">
{%- for set in sets %}<li><a href="#{{ set.anchor }}">{{ set.name }}</a></li>{% endfor -%}
<li><a href="#how">How it was made</a></li><li><a href="#caveats">Caveats</a></li></ul></nav>
{%- endif %}
{%- for set in sets %}
<section id="{{ set.anchor }}" aria-labelledby="{{ set.anchor }}-title">
<h2 id="{{ set.anchor }}-title">{{ set.name }}</h2>
<p>{{ set.length }}</p>
{%- if set.warnings %}
<div class="note" role="note"><ul>{% for warning in set.warnings %}<li>{{ warning }}</li>{% endfor %}</ul></div>
{%- endif %}
<div class="scroll" role="region" tabindex="0" aria-label="Measures of {{ set.name }}">
<table>
<caption><span>{{ set.caption }}</span></caption>
<thead><tr><th scope="col">Measure</th>
{%- for arm in set.arms %}<th scope="col"><span class="swatch" style="background:{{ arm.colour }}"></span>{{ arm.name }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in set.rows %}
<tr><th scope="row">{{ row.label }}<small>{{ row.unit }}</small></th>{% for text in row.cells %}{{ cell(text) }}{% endfor %}</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- if set.differences %}
<h3>Is the difference clear?</h3>
<p class="soft">{{ set.convention }}</p>
<div class="scroll" role="region" tabindex="0" aria-label="Differences of {{ set.name }}">
<table>
<caption><span>Arm − {{ set.reference }} by paired rows: mean, 95 % interval, reading.</span></caption>
<thead><tr><th scope="col">Measure</th>
{%- for arm in set.compared %}<th scope="col"><span class="swatch" style="background:{{ arm.colour }}"></span>{{ arm.name }} − {{ set.reference }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in set.differences %}
<tr><th scope="row">{{ row.label }}<small>{{ row.unit }}</small></th>
{%- for text in row.cells %}<td{% if text.mean == "missing" %} class="missing"{% endif %}>{{ text.mean }}<small>{{ text.interval }}</small><span class="{{ 'clear' if text.is_clear else 'soft' }}">{{ text.reading }}</span></td>{% endfor %}</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- endif %}
{%- if set.pictures %}
<h3>Figures</h3>
<div class="figures">{% for p in set.pictures %}{{ picture(p) }}{% endfor %}</div>
{%- endif %}
<h3>Responses side by side</h3>
{%- if set.samples %}
<p class="soft">{{ set.samples_note }}</p>
{%- for sample in set.samples %}
<article class="sample">
<h4>Test row {{ sample.row }}{% if sample.id %} <span class="soft">{{ sample.id }}</span>{% endif %}</h4>
<div class="verbatim">{{ sample.instruction }}</div>
{%- if sample.prompt %}
<details><summary>The whole prompt</summary><div class="verbatim soft">{{ sample.prompt }}</div></details>
{%- endif %}
<div class="reference"><h5>Reference</h5><div class="verbatim">{{ sample.reference }}</div></div>
<div class="texts">
{%- for text in sample.texts %}
<div class="text" style="border-top-color:{{ text.colour }}"><h5>{{ text.name }}{% if text.remark %} <span class="soft">{{ text.remark }}</span>{% endif %}</h5>
<div class="verbatim{{ ' missing' if text.missing }}">{{ text.text }}</div></div>
{%- endfor %}
</div>
</article>
{%- endfor %}
{%- else %}
<p class="missing">Responses to the test rows: missing.</p>
{%- endif %}
</section>
{%- endfor %}
<section id="how" aria-labelledby="how-title">
<h2 id="how-title">How it was made</h2>
<p>The command that made this report:</p>
<pre class="command">{{ command }}</pre>
{%- for set in sets %}
<h3>{{ set.name }}</h3>
<dl>{% for name, value in set.facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{%- for table in set.tables %}
<div class="scroll" role="region" tabindex="0" aria-label="{{ table.caption }}">
<table>
<caption><span>{{ table.caption }}</span></caption>
<thead><tr>{% for name in table.head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in table.rows %}
<tr><th scope="row">{{ row[0] }}</th>{% for value in row[1:] %}<td class="path">{{ value }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- endfor %}
<details><summary>Options that all arms share</summary>
<p class="soft">{% for name, value in set.shared %}{{ name }} {{ value }}{{ "; " if not loop.last }}{% endfor %}</p></details>
{%- endfor %}
</section>
<section id="caveats" aria-labelledby="caveats-title">
<h2 id="caveats-title">Caveats</h2>
{%- if note %}
<p>{{ note }}</p>
{%- endif %}
{%- for set in sets %}
{%- if sets | length > 1 %}
<h3>{{ set.name }}</h3>
{%- endif %}
<ul>{% for line in set.caveats %}<li>{{ line }}</li>{% endfor %}</ul>
{%- endfor %}
</section>
</main>
</body>
</html>
"""
