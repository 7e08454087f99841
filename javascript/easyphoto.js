// The page's half of the tabs: follows jobs, hands choices made in our own HTML to the server, saves files, moves the
// before/after line, and puts our words into Chinese. Works below #easyphoto_tabs alone, in a WebUI and by itself.
(() => {
  if (window.easyphotoHere) return;
  window.easyphotoHere = true;

  const root = () => document.getElementById('easyphoto_tabs');
  const part = (id) => document.getElementById(id);
  const press = (id) => { const found = part(id); if (found) found.click(); };
  const all = (selector) => { const top = root(); return top ? [...top.querySelectorAll(selector)] : []; };

  // ---- choices -------------------------------------------------------------------------------------------------------

  let number = 0;
  const fill = (id, value) => {
    const text = document.querySelector(`#${id} textarea, #${id} input`);
    if (!text) return;
    text.value = value;
    text.dispatchEvent(new Event('input', { bubbles: true }));
  };
  // A moment later, so that the page's own state has taken the text in.
  const tell = (id, value) => { fill(id, value); setTimeout(() => press(`${id}_go`), 60); };

  let waiting = 0;
  const listed = (id) => {
    const ticked = all(`input[data-easyphoto-list="${id}"]:checked`).map((box) => box.value);
    clearTimeout(waiting);
    waiting = setTimeout(() => tell(id, JSON.stringify(ticked)), 120);
  };

  document.addEventListener('click', (event) => {
    const button = event.target.closest && event.target.closest('[data-easyphoto-choose]');
    if (!button || !root() || !root().contains(button)) return;
    for (const other of all(`[data-easyphoto-choose="${button.dataset.easyphotoChoose}"]`)) {
      other.setAttribute('aria-pressed', String(other === button));
    }
    number += 1;
    tell(button.dataset.easyphotoChoose, `${button.dataset.value}#${number}`);
  });
  document.addEventListener('change', (event) => {
    const data = event.target.dataset || {};
    if (data.easyphotoList) listed(data.easyphotoList);
    if (data.easyphotoLanguage !== undefined) speak(event.target.value, true);
  });
  document.addEventListener('input', (event) => {
    const box = event.target.closest && event.target.closest('.easyphoto-compare');
    if (box) box.style.setProperty('--easyphoto-at', `${event.target.value}%`);
  });

  // ---- following jobs ------------------------------------------------------------------------------------------------

  const AT_FIRST = ['easyphoto_train_poll', 'easyphoto_portrait_poll', 'easyphoto_portrait_refresh',
    'easyphoto_people_refresh', 'easyphoto_history_refresh'];
  const LISTS = AT_FIRST.slice(2);
  const pressed = {};
  let followed = new Set();
  let tries = 0;

  const follow = () => {
    if (!root() || !part(AT_FIRST[0])) return;
    // The first presses may come before the page listens; each is repeated until its answer is here.
    if (tries < 20 && !root().querySelector('[data-easyphoto-awake]')) {
      tries += 1;
      AT_FIRST.forEach(press);
      return;
    }
    const now = new Set();
    for (const mark of all('[data-easyphoto-poll]')) {
      const id = mark.dataset.easyphotoPoll;
      const before = pressed[id] || {};
      now.add(id);
      if (before.beat === mark.dataset.beat && Date.now() - before.at < 6000) continue;
      pressed[id] = { beat: mark.dataset.beat, at: Date.now() };
      press(id);
    }
    // Something has come to its end: the lists of people and portraits may be longer now.
    if ([...followed].some((id) => !now.has(id))) LISTS.forEach(press);
    followed = now;
  };
  // An answer that was under way when a button began a job may come behind the button's own, and take the job off the page
  // again; so we ask once more.
  const BEGIN = { easyphoto_train_check: 0, easyphoto_train_start: 0, easyphoto_train_resume: 0, easyphoto_portrait_generate: 1 };
  document.addEventListener('click', (event) => {
    const button = event.target.closest && event.target.closest(Object.keys(BEGIN).map((id) => `#${id}`).join());
    if (button) [3000, 9000, 27000].forEach((pause) => setTimeout(press, pause, AT_FIRST[BEGIN[button.id]]));
  });
  setInterval(() => { if (!document.hidden || Date.now() % 5000 < 1000) follow(); }, 1000);

  // ---- saving files --------------------------------------------------------------------------------------------------

  const save = (link) => {
    const [head, body] = link.href.split(',');
    const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([bytes], { type: head.slice(5).split(';')[0] }));
    const away = document.createElement('a');
    away.href = url;
    away.download = link.download;
    link.remove();
    away.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };

  // ---- words ---------------------------------------------------------------------------------------------------------

  const exact = new Map();
  const forms = [];
  const texts = new WeakMap();
  const NAMES = ['placeholder', 'title', 'aria-label'];
  let language = 'en';

  const learn = (words) => {
    for (const [from, to] of Object.entries(words)) {
      if (!from.includes('{}')) { exact.set(from, to); continue; }
      const pattern = from.split('{}').map((piece) => piece.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('(.+?)');
      forms.push([new RegExp(`^${pattern}$`, 's'), to, from.length]);
    }
    // What says more goes first: "{} of {} photos ..." before "{} of {}".
    forms.sort((one, other) => other[2] - one[2]);
  };
  const inChinese = (text) => {
    if (exact.has(text)) return exact.get(text);
    for (const [form, to] of forms) {
      const found = form.exec(text);
      if (found) { let place = 0; return to.replace(/\{\}/g, () => { place += 1; return exact.get(found[place]) || found[place]; }); }
    }
    return text;
  };
  const changed = (text) => {
    const bare = text.trim();
    return language === 'zh' && bare ? text.replace(bare, () => inChinese(bare)) : text;
  };
  const put = (owner, key, read, write) => {
    const known = texts.get(owner) || {};
    texts.set(owner, known);
    const now = read();
    const from = known[key] && known[key].to === now ? known[key].from : now;
    const to = changed(from);
    known[key] = { from, to };
    if (to !== now) write(to);
  };
  const closed = (element) => !element || element.closest('[translate="no"], script, style, textarea') !== null;
  const visit = (top) => {
    const walker = document.createTreeWalker(top, NodeFilter.SHOW_TEXT);
    for (let node = top.nodeType === 3 ? top : walker.nextNode(); node; node = walker.nextNode()) {
      const text = node;
      if (!closed(text.parentElement)) put(text, 'text', () => text.data, (to) => { text.data = to; });
    }
    if (top.nodeType !== 1) return;
    for (const element of [top, ...top.querySelectorAll(NAMES.map((name) => `[${name}]`).join())]) {
      if (element.closest('[translate="no"]')) continue;
      for (const name of NAMES) {
        if (element.hasAttribute(name)) {
          put(element, name, () => element.getAttribute(name), (to) => element.setAttribute(name, to));
        }
      }
    }
  };
  const speak = (wanted, said) => {
    language = wanted === 'zh' ? 'zh' : 'en';
    if (said) try { localStorage.setItem('easyphoto-language', language); } catch (error) { /* a private window */ }
    all('[data-easyphoto-language]').forEach((box) => { box.value = language; });
    if (root()) { root().lang = language === 'zh' ? 'zh-CN' : 'en'; visit(root()); }
  };
  const first = (data) => {
    if (data.language !== 'auto') return data.language;
    if (data.alone !== '1') {
      const chosen = typeof opts === 'object' && opts ? String(opts.localization || '') : '';
      return /^zh/i.test(chosen) ? 'zh' : 'en';
    }
    let kept = null;
    try { kept = localStorage.getItem('easyphoto-language'); } catch (error) { /* a private window */ }
    return kept || (/^zh/i.test(navigator.language) ? 'zh' : 'en');
  };

  // ---- the page as it comes and changes ------------------------------------------------------------------------------

  const look = (top) => {
    if (language === 'zh') visit(top);
    if (top.nodeType !== 1) return;
    const links = top.matches('a[data-easyphoto-save]') ? [top] : top.querySelectorAll('a[data-easyphoto-save]');
    links.forEach(save);
  };
  const begin = () => {
    const top = root();
    const words = top && top.querySelector('[data-easyphoto-words]');
    if (!words) { setTimeout(begin, 200); return; }
    learn(JSON.parse(words.dataset.easyphotoWords));
    words.removeAttribute('data-easyphoto-words');
    new MutationObserver((changes) => {
      for (const change of changes) {
        change.addedNodes.forEach(look);
        if (language !== 'zh') continue;
        if (change.type === 'characterData') visit(change.target);
        if (change.type === 'attributes') visit(change.target);
      }
    }).observe(top, { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: NAMES });
    // A host says its language a moment after the page is there.
    speak(first(words.dataset), false);
    if (words.dataset.alone !== '1') setTimeout(() => speak(first(words.dataset), false), 2500);
    follow();
  };
  begin();
})();
