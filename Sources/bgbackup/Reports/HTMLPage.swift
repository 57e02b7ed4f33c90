/// One page that needs nothing else: no script, no other file, light and dark.
struct HTMLPage {
    /// Plain text.
    let title: String
    /// What stands in `main`, already escaped.
    let body: String

    var html: String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
        <meta name="color-scheme" content="light dark">
        <title>\(escaped(title))</title>
        <style>\(Self.style)</style>
        </head>
        <body>
        <main>
        \(body)
        </main>
        </body>
        </html>

        """
    }

    private static let style = """

        :root{--paper:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#dde2e7;--panel:#f5f7f9;--fail:#b3261e;--warn:#8a5a00;--pass:#1b6e3c;--blue:#2563c9;--green:#1f8a4c}
        @media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e8ebee;--soft:#9aa5b1;--line:#30363d;--panel:#1d2125;--fail:#ff8a80;--warn:#f2b84b;--pass:#6fd394;--blue:#7aa9ff;--green:#5fcf8d}}
        *{box-sizing:border-box}
        body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
        main{max-width:1180px;margin:0 auto;padding:20px}
        h1{font-size:1.6rem;margin:0}h2{font-size:1.05rem;margin:26px 0 10px}h3{font-size:.95rem;margin:0 0 4px}
        small{font-weight:400;color:var(--soft)}
        .banner{border-left:8px solid var(--pass);background:var(--panel);padding:16px 20px;border-radius:6px}
        .banner.fail{border-color:var(--fail)}.banner.warn{border-color:var(--warn)}
        .banner.pass h1,.banner.warn h1{color:var(--pass)}.banner.fail h1{color:var(--fail)}
        .banner p{margin:6px 0 0;overflow-wrap:anywhere}.counts{color:var(--soft)}
        .facts{display:grid;gap:12px;margin:14px 0 0}
        .facts dt{color:var(--soft);font-size:.85rem}.facts dd{margin:0;overflow-wrap:anywhere}.facts span{display:block;color:var(--soft)}
        table{width:100%;border-collapse:collapse;table-layout:fixed}
        thead th{text-align:left;color:var(--soft);font-weight:600;font-size:.85rem}
        th,td{padding:6px 8px;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
        tbody th{text-align:left;font-weight:600}
        .checks th:nth-child(1),.checks td:nth-child(1){width:76px}.checks thead th:nth-child(2){width:15%}.checks thead th:nth-child(3){width:16%}
        td p{margin:2px 0 0;color:var(--soft);font-size:.9em}
        td b{font-size:.8rem}.fail b{color:var(--fail)}.warn b{color:var(--warn)}.pass b{color:var(--pass)}
        .facts{grid-template-columns:repeat(auto-fit,minmax(210px,1fr))}
        .objectives{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:14px 28px}
        .meter{position:relative;height:14px;background:var(--panel);border-radius:3px;margin:4px 0}
        .meter i{position:absolute;left:0;top:0;bottom:0;border-radius:3px;background:var(--pass)}.meter.fail i{background:var(--fail)}.meter.none i{background:var(--soft)}
        .meter u{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--ink)}
        .big{font-size:1.35rem;font-weight:600}.soft{color:var(--soft)}
        .timeline{display:grid;grid-template-columns:78px 1fr 76px;gap:3px 10px;align-items:center;font-size:.9rem}
        .timeline .track{height:14px}.timeline i{border-radius:2px;min-width:2px;background:var(--blue)}.timeline i.warn{background:var(--warn)}.timeline i.fail{background:var(--fail)}
        .timeline .value{text-align:right}.timeline p{grid-column:2/4;margin:0 0 5px;color:var(--soft);overflow-wrap:anywhere}
        .legend span{margin-right:14px;white-space:nowrap}.legend i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:5px}
        svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font:11px system-ui,sans-serif}
        .two{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:0 28px}
        .last{display:flex;align-items:flex-end;gap:6px;height:96px;margin-top:4px}.last div{flex:1;max-width:56px;text-align:center;font-size:.72rem;color:var(--soft)}
        .last i{display:block;background:var(--pass);border-radius:2px 2px 0 0}.last i.warn{background:var(--warn)}.last i.fail{background:var(--fail)}
        .latency{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:14px 28px}
        .row{display:grid;grid-template-columns:46px 1fr 128px;gap:8px;align-items:center;font-size:.9rem}
        .track{position:relative;height:12px;background:var(--panel);border-radius:3px;overflow:hidden}
        .track i{position:absolute;left:0;top:0;bottom:0}.track .wide{opacity:.4}
        i.blue{background:var(--blue)}i.green{background:var(--green)}.value{text-align:right;color:var(--soft);white-space:nowrap}
        .scroll{overflow-x:auto;direction:rtl}.scroll>svg{direction:ltr}
        @media screen and (max-width:700px){.scroll>svg{min-width:820px}.scroll text{font-size:12px}
        main{padding:12px}svg text{font-size:15px}h1{font-size:1.3rem}.facts{grid-template-columns:1fr}.latency,.objectives,.two{grid-template-columns:1fr}
        .checks thead{display:none}.checks,.checks tbody,.checks tr,.checks th,.checks td{display:block;width:auto}
        .checks tr{border-bottom:1px solid var(--line);padding:8px 0;position:relative}
        .checks th,.checks td{border:0;padding:1px 0}.checks td:nth-child(1){position:absolute;right:0;top:8px;width:auto}
        .checks td[data-label]{display:grid;grid-template-columns:88px 1fr}.checks td[data-label]::before{content:attr(data-label);color:var(--soft)}
        .checks td p{grid-column:2}}
        @media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#ccc;--panel:#f4f4f4;--fail:#b3261e;--warn:#8a5a00;--pass:#1b6e3c;--blue:#2563c9;--green:#1f8a4c}
        @page{size:A4;margin:10mm}html{font-size:9px}body{font-size:8.5px;line-height:1.25}main{padding:0;max-width:none}h1{font-size:15px}h2{margin:8px 0 3px;font-size:10px}h3{font-size:9px}
        .banner{padding:6px 10px}.facts{margin:6px 0 0}th,td{padding:1.5px 4px}.checks th:nth-child(1),.checks td:nth-child(1){width:44px}
        .track,.timeline .track{height:6px}.timeline{gap:1px 8px}.timeline p{margin:0 0 2px}.meter{height:7px}.big{font-size:13px}.last{height:60px}svg{max-height:110px}.checks{page-break-inside:auto}.latency{gap:4px 20px}tr{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}

        """
}
