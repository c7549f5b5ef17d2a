// The page of the admin listener: one document that asks for status.json each second and shows it.
//
// Nothing comes from elsewhere, and nothing that status.json says is taken for markup: all of it is put
// in as text. The policy holds the browser to that.

/// See the head of this file.
enum StatusPage {
    /// Only our own style and script, by a number that is drawn for each answer.
    static func policy(nonce: String) -> String {
        "default-src 'none'; script-src 'nonce-\(nonce)'; style-src 'nonce-\(nonce)';"
            + " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    }

    static func html(nonce: String) -> String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>redis-auth-proxy</title>
        <style nonce="\(nonce)">\(style)</style>
        </head>
        \(body)
        <script nonce="\(nonce)">\(script)</script>
        </html>
        """
    }

    private static let style = #"""

        :root {
          color-scheme: light dark;
          --page: #f5f6f8; --card: #fff; --line: #dfe3e8; --text: #1b2430; --dim: #5a6675;
          --good: #11713f; --good-back: #e0f4e8; --bad: #ab1f1f; --bad-back: #fce8e8;
          --mark: #1f5fbf; --track: #e6eaef;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --page: #11161d; --card: #1a212b; --line: #2c3643; --text: #e6ebf1; --dim: #9aa7b6;
            --good: #63d297; --good-back: #12341f; --bad: #ff8f8f; --bad-back: #431c1e;
            --mark: #77aaf5; --track: #2a3441;
          }
        }
        * { box-sizing: border-box; }
        body {
          margin: 0; background: var(--page); color: var(--text);
          font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
        }
        main, header { max-width: 1180px; margin: 0 auto; padding: 0 16px; }
        header { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; padding-top: 20px; }
        h1 { font-size: 20px; margin: 0; letter-spacing: -.01em; }
        h2 { font-size: 13px; margin: 0 0 10px; color: var(--dim); font-weight: 600; }
        .badge { border-radius: 999px; padding: 2px 12px; font-weight: 600; }
        .good { color: var(--good); background: var(--good-back); }
        .bad { color: var(--bad); background: var(--bad-back); }
        .dim { color: var(--dim); }
        header .dim { margin-left: auto; font-size: 13px; }
        .cards { display: grid; gap: 14px; margin: 16px 0 32px; grid-template-columns: repeat(12, 1fr); }
        .card {
          background: var(--card); border: 1px solid var(--line); border-radius: 10px;
          padding: 14px 16px; grid-column: span 12; min-width: 0;
        }
        .number { font-size: 28px; font-weight: 650; letter-spacing: -.02em; line-height: 1.15;
          font-variant-numeric: tabular-nums; }
        .number small { font-size: 14px; font-weight: 500; color: var(--dim); letter-spacing: 0; }
        .figure { grid-column: span 3; }
        .half { grid-column: span 6; }
        .scroll { overflow-x: auto; }
        table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
        th { text-align: left; font-weight: 500; color: var(--dim); font-size: 13px; }
        th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
        tr:last-child td { border-bottom: 0; }
        th:last-child, td:last-child { padding-right: 0; }
        th.n, td.n { text-align: right; white-space: nowrap; }
        td.name { font-weight: 550; white-space: nowrap; }
        td.long { min-width: 200px; overflow-wrap: anywhere; }
        .number + dl { margin-top: 6px; }
        #limits div + div { margin-top: 9px; }
        ul { margin: 0; padding: 0; list-style: none; }
        li { padding: 5px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
        li:last-child { border-bottom: 0; }
        time { color: var(--dim); font-size: 13px; white-space: nowrap; }
        progress { appearance: none; width: 100%; height: 6px; border: 0; display: block; margin-top: 3px; }
        progress::-webkit-progress-bar { background: var(--track); border-radius: 3px; }
        progress::-webkit-progress-value { background: var(--mark); border-radius: 3px; }
        progress::-moz-progress-bar { background: var(--mark); border-radius: 3px; }
        svg { width: 100%; height: 44px; display: block; margin-top: 6px; }
        svg path { fill: none; stroke: var(--mark); stroke-width: 2; vector-effect: non-scaling-stroke; }
        dl { display: grid; grid-template-columns: auto 1fr; gap: 2px 14px; margin: 0; }
        dt { color: var(--dim); }
        dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
        #obstacles:empty, #obstacles.none { display: none; }
        @media (max-width: 900px) { .figure { grid-column: span 6; } .half { grid-column: span 12; } }
        @media (max-width: 480px) {
          body { font-size: 14px; } .number { font-size: 23px; }
          header .dim { margin-left: 0; width: 100%; } .card { padding: 12px; }
          .cards { gap: 10px; }
        }

        """#

    private static let body = #"""
        <body>
        <header>
          <h1>redis-auth-proxy</h1>
          <span id="state" class="badge" role="status" aria-live="polite">…</span>
          <span class="dim" id="about"></span>
        </header>
        <main>
          <noscript><p>This page needs JavaScript; <a href="/status.json">/status.json</a> does not.</p></noscript>
          <div class="cards">
            <section class="card none" id="obstacles" aria-labelledby="h-obstacles">
              <h2 id="h-obstacles">Why it is not ready</h2><ul id="obstacle-list"></ul>
            </section>
            <section class="card figure" aria-labelledby="h-rate">
              <h2 id="h-rate">Requests</h2>
              <div class="number"><span id="rate">–</span> <small>per second</small></div>
              <svg viewBox="0 0 120 40" preserveAspectRatio="none" role="img"
                aria-label="Requests per second in the last two minutes"><path id="rate-line" d=""/></svg>
            </section>
            <section class="card figure" aria-labelledby="h-latency">
              <h2 id="h-latency">Latency</h2><dl id="latency"></dl>
            </section>
            <section class="card figure" aria-labelledby="h-clients">
              <h2 id="h-clients">Clients</h2>
              <div class="number"><span id="clients">–</span> <small>connected</small></div>
              <dl id="client-facts"></dl>
            </section>
            <section class="card figure" aria-labelledby="h-up">
              <h2 id="h-up">Upstream connections</h2>
              <div class="number"><span id="upstream">–</span> <small>logged in</small></div>
              <dl id="upstream-facts"></dl>
            </section>
            <section class="card" aria-labelledby="h-users">
              <h2 id="h-users">Users and their credentials</h2>
              <div class="scroll" tabindex="0" role="region" aria-labelledby="h-users"><table>
                <thead><tr><th scope="col">User</th><th scope="col">Server</th><th scope="col">Last login</th>
                <th scope="col">Credential</th><th scope="col" class="n">Time left</th>
                <th scope="col" class="n">Oldest login</th><th scope="col" class="n">Next renewal</th>
                <th scope="col">Connections</th></tr></thead><tbody id="users"></tbody></table></div>
            </section>
            <section class="card" aria-labelledby="h-sessions">
              <h2 id="h-sessions">Clients by what they are</h2>
              <div class="scroll" tabindex="0" role="region" aria-labelledby="h-sessions"><table>
                <thead><tr><th scope="col">Listener</th><th scope="col">Who</th><th scope="col">User</th>
                <th scope="col" class="n">Connected</th><th scope="col" class="n">Pinned</th>
                <th scope="col" class="n">Owed</th><th scope="col" class="n">Commands</th>
                <th scope="col" class="n">In</th><th scope="col" class="n">Out</th></tr></thead>
                <tbody id="sessions"></tbody></table></div>
            </section>
            <section class="card half" aria-labelledby="h-listeners">
              <h2 id="h-listeners">Listeners</h2>
              <div class="scroll" tabindex="0" role="region" aria-labelledby="h-listeners"><table>
                <thead><tr><th scope="col">Address</th><th scope="col">Mode</th>
                <th scope="col" class="n">Clients</th></tr></thead><tbody id="listeners"></tbody></table></div>
            </section>
            <section class="card half" aria-labelledby="h-limits">
              <h2 id="h-limits">Limits</h2><div id="limits"></div>
            </section>
            <section class="card" aria-labelledby="h-records">
              <h2 id="h-records">Last warnings and errors</h2><ul id="records"></ul>
            </section>
          </div>
        </main>
        </body>
        """#

    private static let script = #"""

        'use strict';
        const at = id => document.getElementById(id);
        const make = (name, text, kind) => {
          const element = document.createElement(name);
          if (text !== undefined) element.textContent = text;
          if (kind) element.className = kind;
          return element;
        };
        const fill = (id, children) => at(id).replaceChildren(...children);
        const row = cells => {
          const line = make('tr');
          for (const cell of cells) {
            line.append(cell instanceof Node ? cell : Array.isArray(cell)
              ? make('td', cell[0], cell[1]) : make('td', cell));
          }
          return line;
        };
        const facts = (id, pairs) =>
          fill(id, pairs.flatMap(([name, value]) => [make('dt', name), make('dd', value)]));
        const whole = value => Math.round(value).toLocaleString('en');
        const bytes = value => {
          const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
          let unit = 0;
          while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
          return (unit && value < 100 ? value.toFixed(1) : whole(value)) + ' ' + units[unit];
        };
        const duration = seconds => {
          if (seconds === undefined || seconds === null) return '–';
          if (seconds < 60) return Math.floor(seconds) + ' s';
          if (seconds < 3600) return Math.floor(seconds / 60) + ' min ' + Math.floor(seconds % 60) + ' s';
          if (seconds < 86400)
            return Math.floor(seconds / 3600) + ' h ' + Math.floor(seconds % 3600 / 60) + ' min';
          return Math.floor(seconds / 86400) + ' d ' + Math.floor(seconds % 86400 / 3600) + ' h';
        };
        const latency = seconds => seconds < 0.001 ? whole(seconds * 1e6) + ' µs'
          : seconds < 1 ? (seconds * 1e3).toPrecision(3) + ' ms' : seconds.toPrecision(3) + ' s';
        const rates = [];

        function show(status) {
          const state = at('state');
          state.textContent = status.is_draining ? 'draining' : status.is_ready ? 'ready' : 'not ready';
          state.className = 'badge ' + (status.is_ready ? 'good' : 'bad');
          document.title = state.textContent + ' · redis-auth-proxy';
          at('about').textContent = 'version ' + status.version + ' · up ' + duration(status.uptime_seconds);
          at('obstacles').classList.toggle('none', status.obstacles.length === 0);
          fill('obstacle-list', status.obstacles.map(o => {
            const item = make('li');
            item.append(make('strong', o.subject + ': '), o.reason);
            return item;
          }));

          const rate = status.recent ? status.recent.commands_per_second : 0;
          rates.push(rate);
          if (rates.length > 120) rates.shift();
          at('rate').textContent = whole(rate);
          const top = Math.max(...rates, 1);
          at('rate-line').setAttribute('d', rates.map((value, index) =>
            (index ? 'L' : 'M') + (120 - rates.length + index) + ' ' + (38 - 36 * value / top).toFixed(1)).join(''));
          const recent = status.recent && status.recent.latency;
          facts('latency', (recent || status.latency || []).map(entry =>
            ['p' + entry.percentile, latency(entry.seconds)]).concat(
              recent ? [['over', 'last ' + Math.round(status.recent.seconds) + ' s']]
                : status.latency ? [['over', 'since start']] : [['no reply', 'yet']]));

          const sum = (rows, name) => rows.reduce((total, entry) => total + entry[name], 0);
          at('clients').textContent = whole(sum(status.sessions, 'connected'));
          facts('client-facts', [
            ['pinned', whole(sum(status.sessions, 'pinned'))],
            ['owed replies', whole(sum(status.sessions, 'owed_replies'))],
            ['refused', whole(Object.values(status.sessions_refused).reduce((a, b) => a + b, 0))],
          ]);
          const connections = status.users.flatMap(user => user.connections);
          const ready = connections.filter(c => c.state === 'ready');
          at('upstream').textContent = whole(sum(ready, 'count'));
          const used = use => whole(sum(ready.filter(c => c.use === use), 'count'));
          facts('upstream-facts', [['shared', used('shared')],
            ['of one client', used('own')], ['spare', used('spare')],
            ['lost', whole(sum(status.users, 'connections_lost'))]]);

          fill('users', status.users.map(user => {
            const login = make('td');
            const good = user.last_login === 'accepted';
            login.append(make('span', user.last_login.replaceAll('_', ' '),
              'badge ' + (good ? 'good' : user.last_login === 'none' ? '' : 'bad')));
            const credential = make('td', undefined, 'long');
            credential.append(user.credential_kind + ' · ' + user.credential_source);
            if (!user.credential_available || user.credential_failure) {
              credential.append(make('br'), make('span',
                user.credential_failure || 'there is none', 'badge bad'));
            }
            return row([[user.name, 'name'], user.upstream, login, credential,
              [user.credential_kind === 'token' ? duration(user.credential_seconds_left) : 'no end', 'n'],
              [duration(user.oldest_login_age_seconds), 'n'], [duration(user.next_renewal_seconds), 'n'],
              user.connections.map(c => c.count + ' ' + c.use + (c.state === 'ready' ? ''
                : ' (' + c.state.replaceAll('_', ' ') + ')')).join(', ') || 'none']);
          }));
          fill('sessions', status.sessions.map(s => row([[s.listener, 'name'], s.principal, s.user || '–',
            [whole(s.connected), 'n'], [whole(s.pinned), 'n'], [whole(s.owed_replies), 'n'],
            [whole(s.commands), 'n'], [bytes(s.received_bytes), 'n'], [bytes(s.sent_bytes), 'n']])));
          fill('listeners', status.listeners.map(l =>
            row([[l.address, 'name'], l.mode, [whole(l.sessions), 'n']])));
          fill('limits', status.limits.map(limit => {
            const block = make('div');
            const line = make('dl');
            const amount = limit.name.endsWith('_bytes') ? bytes : whole;
            const name = limit.name.replace(/_bytes$/, '').replaceAll('_', ' ');
            line.append(make('dt', name),
              make('dd', amount(limit.used) + ' of ' + amount(limit.allowed)));
            const bar = make('progress');
            bar.max = Math.max(1, limit.allowed);
            bar.value = limit.used;
            bar.setAttribute('aria-label', name);
            block.append(line, bar);
            return block;
          }));
          fill('records', status.records.length ? status.records.map(record => {
            const item = make('li');
            item.append(make('time', record.time.replace('T', ' ').replace('Z', ' UTC')), ' ',
              make('strong', record.level), ' ' + record.text);
            return item;
          }) : [make('li', 'none since the start', 'dim')]);
        }

        async function look() {
          try {
            const answer = await fetch('/status.json', {cache: 'no-store'});
            if (!answer.ok) throw new Error('status ' + answer.status);
            show(await answer.json());
          } catch (error) {
            at('state').textContent = 'no answer from the proxy';
            at('state').className = 'badge bad';
          }
          setTimeout(look, 1000);
        }
        look();

        """#
}
