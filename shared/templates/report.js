"use strict";
// The table of endpoints. Everything from certificates gets in as text, never as markup.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const STATUSES = ["ok", "warning", "unknown", "critical"];
  const STEP = 100;
  const byId = (id) => document.getElementById(id);
  const { made, words, certificates, rows } = JSON.parse(byId("data").textContent);
  const names = new Intl.Collator("en", { numeric: true });

  // What is the same in many of them stands once in `words`.
  for (const certificate of certificates) {
    for (const name of ["issuer", "by", "key", "signature"]) certificate[name] = words[certificate[name]];
  }
  rows.forEach((row, index) => {
    row.index = index;
    row.findings ??= [];
    row.seen ??= [];
    for (const seen of row.seen) {
      seen.tls = words[seen.tls];
      seen.revocation = words[seen.revocation];
      seen.tries ??= 1;
    }
  });
  const leaf = (row) => certificates[row.leaf];
  const issuer = (row) => leaf(row)?.by ?? "";

  // A server may have a second certificate at the same address.
  const addresses = (row) => row.seen.filter((seen) => !seen.other);

  const keys = {
    status: (row) => -row.status,
    endpoint: (row) => row.endpoint,
    expires: (row) => row.end ?? Infinity,
    issuer,
    key: (row) => leaf(row)?.key ?? "",
    addresses: (row) => -addresses(row).length,
  };

  const state = { words: [], status: new Set(), sort: "status", down: false, limit: STEP, open: new Set() };
  let chosen = rows;

  // ---- building

  function element(name, className, ...children) {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== undefined && child !== ""));
    return node;
  }

  function icon(status) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", `icon ${status}`);
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", `#${status}`);
    svg.append(use);
    return svg;
  }

  const day = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
  const minute = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC";
  const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

  function line(row) {
    const status = STATUSES[row.status];
    const tr = element("tr", "row");
    const open = element("button", "open", element("span", "", row.endpoint));
    open.type = "button";
    open.setAttribute("aria-expanded", String(state.open.has(row.index)));
    open.addEventListener("click", () => toggle(row, tr, open));
    const endpoint = element("th", "c-endpoint", open);
    endpoint.scope = "row";
    if (row.unicode) endpoint.append(element("p", "found", row.unicode));
    if (row.quiet) endpoint.append(element("p", "found", "quiet: in no alert"));
    for (const finding of row.findings.slice(0, 3)) endpoint.append(element("p", "found", finding.message));
    if (row.findings.length > 3) endpoint.append(element("p", "found", `and ${row.findings.length - 3} more`));
    const expires = element("td", "c-expires");
    if (row.end === undefined) expires.append(element("span", "muted", "not seen"));
    else expires.append(element("span", "when-left", row.left), element("span", "muted", day(row.end)));
    const [first] = row.seen;
    const count = addresses(row).length;
    const where = count > 1 ? plural(count, "address", "addresses") : first?.address.replace(/:\d+$/, "") ?? "none";
    tr.append(
      element("td", `c-status status ${status}`, icon(status), element("span", "", status)),
      endpoint,
      expires,
      element("td", "c-issuer", issuer(row)),
      element("td", "c-key", leaf(row)?.key ?? ""),
      element("td", "c-addresses", where),
    );
    return tr;
  }

  function toggle(row, tr, open) {
    const expanded = !state.open.has(row.index);
    open.setAttribute("aria-expanded", String(expanded));
    if (expanded) {
      state.open.add(row.index);
      tr.after(details(row));
    } else {
      state.open.delete(row.index);
      tr.nextElementSibling.remove();
    }
  }

  function facts(...pairs) {
    const dl = element("dl");
    for (const [name, value] of pairs) {
      if (value === undefined || value === "") continue;
      dl.append(element("dt", "", name), element("dd", "", value));
    }
    return dl;
  }

  function details(row) {
    const cell = element("td");
    cell.colSpan = 6;
    if (row.findings.length > 0) {
      const list = element("ul", "findings");
      for (const finding of row.findings) {
        const where = finding.at ? ` at ${finding.at.join(", ")}` : "";
        list.append(element("li", "", icon(STATUSES[finding.severity]), `${finding.message} `, element("span", "muted", `[${finding.code}]${where}`)));
      }
      cell.append(element("h4", "", "Findings"), list);
    }
    for (const seen of row.seen) cell.append(...observation(seen));
    for (const skipped of row.skipped ?? []) cell.append(element("p", "muted small", `${skipped[0]} was left out: ${skipped[1]}`));
    return element("tr", "details", cell);
  }

  function observation(seen) {
    const certificate = certificates[seen.leaf];
    const heading = element("h4", "", seen.other ? `${seen.address}, its other certificate` : seen.address);
    const time = `${seen.ms.toLocaleString("en")} ms${seen.tries > 1 ? `, ${seen.tries} tries` : ""}`;
    if (!certificate) return [heading, facts(["Took", time], ["TLS", seen.tls])];
    const chain = element("ol");
    for (const [index, role] of seen.chain ?? []) {
      const sent = certificates[index];
      const unused = role === "extra" ? ", sent but not needed" : "";
      chain.append(element("li", "", sent.subject, element("span", "muted", ` until ${day(sent.end)}, ${sent.key}, ${sent.signature}${unused}`)));
    }
    const more = certificate.more ? ` and ${certificate.more} more` : "";
    return [heading, facts(
      ["Names", certificate.names.join(", ") + more],
      ["Valid", `${minute(certificate.begin)} – ${minute(certificate.end)}`],
      ["Subject", certificate.subject],
      ["Issuer", certificate.issuer],
      ["Chain sent", chain.childElementCount ? chain : "the certificate alone"],
      ["Revocation", seen.revocation],
      ["Key, signature", `${certificate.key}, ${certificate.signature}`],
      ["Serial", element("span", "mono", certificate.serial)],
      ["Fingerprint", element("span", "mono", certificate.fingerprint)],
      ["TLS", seen.tls],
      ["Took", time],
    )];
  }

  // ---- choosing

  function haystack(row) {
    if (row.text === undefined) {
      const parts = [row.endpoint, row.unicode, STATUSES[row.status]];
      for (const finding of row.findings) parts.push(finding.code, finding.message);
      for (const seen of row.seen) {
        parts.push(seen.address, seen.tls);
        const certificate = certificates[seen.leaf];
        if (certificate) parts.push(certificate.subject, certificate.issuer, certificate.serial, certificate.fingerprint, certificate.key, certificate.signature, ...certificate.names);
      }
      row.text = parts.join("\n").toLowerCase();
    }
    return row.text;
  }

  function choose() {
    chosen = rows.filter((row) =>
      (state.status.size === 0 || state.status.has(STATUSES[row.status])) && state.words.every((word) => haystack(row).includes(word)));
    if (state.sort !== "status" || state.down) {
      const key = keys[state.sort];
      const sign = state.down ? -1 : 1;
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        return sign * (typeof x === "string" ? names.compare(x, y) : x === y ? 0 : x < y ? -1 : 1) || a.index - b.index;
      };
      chosen.sort(order);
    }
    show();
  }

  function show() {
    const visible = chosen.slice(0, state.limit);
    const body = document.createDocumentFragment();
    for (const row of visible) {
      body.append(line(row));
      if (state.open.has(row.index)) body.append(details(row));
    }
    byId("rows").replaceChildren(body);
    const all = rows.length === chosen.length;
    const of = all ? plural(rows.length, "endpoint") : `${chosen.length.toLocaleString("en")} of ${plural(rows.length, "endpoint")}`;
    byId("shown").textContent = visible.length < chosen.length ? `${of}; the first ${visible.length.toLocaleString("en")} are shown` : of;
    const rest = chosen.length - visible.length;
    byId("more").hidden = rest === 0;
    byId("more").textContent = `Show ${Math.min(rest, STEP * 5).toLocaleString("en")} more`;
    byId("reset").hidden = state.words.length === 0 && state.status.size === 0;
    for (const button of document.querySelectorAll("[data-sort]")) {
      const direction = button.dataset.sort !== state.sort ? "none" : state.down ? "descending" : "ascending";
      button.parentElement.setAttribute("aria-sort", direction);
    }
  }

  // ---- the address: what is chosen is in the fragment, so that it can be sent to somebody

  function read() {
    const fragment = new URLSearchParams(location.hash.slice(1));
    const query = fragment.get("q") ?? "";
    state.words = query.toLowerCase().split(/\s+/).filter(Boolean);
    state.status = new Set((fragment.get("status") ?? "").split(",").filter((status) => STATUSES.includes(status)));
    const sort = fragment.get("sort") ?? "";
    state.down = sort.startsWith("-");
    state.sort = Object.hasOwn(keys, sort.replace("-", "")) ? sort.replace("-", "") : "status";
    state.limit = STEP;
    if (byId("query").value.trim() !== query.trim()) byId("query").value = query;
    for (const box of document.getElementsByName("status")) box.checked = state.status.has(box.value);
    choose();
  }

  function write() {
    const fragment = new URLSearchParams();
    if (state.status.size) fragment.set("status", [...state.status].join(","));
    if (byId("query").value.trim()) fragment.set("q", byId("query").value.trim());
    if (state.sort !== "status" || state.down) fragment.set("sort", (state.down ? "-" : "") + state.sort);
    const text = fragment.toString().replaceAll("%2C", ",");
    history.replaceState(null, "", text ? `#${text}` : "#");
  }

  byId("query").addEventListener("input", (event) => {
    state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    state.limit = STEP;
    choose();
    write();
  });
  byId("tools").addEventListener("change", () => {
    const boxes = [...document.getElementsByName("status")];
    state.status = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    state.limit = STEP;
    choose();
    write();
  });
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", (event) => {
    event.preventDefault();
    byId("query").value = "";
    for (const box of document.getElementsByName("status")) box.checked = false;
    state.words = [];
    state.status = new Set();
    choose();
    write();
    byId("query").focus();
  });
  byId("more").addEventListener("click", () => {
    const first = state.limit;
    state.limit += STEP * 5;
    show();
    byId("rows").querySelectorAll(".open")[first]?.focus({ preventScroll: true });
  });
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      state.down = state.sort === button.dataset.sort && !state.down;
      state.sort = button.dataset.sort;
      choose();
      write();
    });
  }
  addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    read();
    byId("endpoints").scrollIntoView();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    event.preventDefault();
    byId("query").focus();
  });

  // ---- a report tells of its day: say so once that is over

  const hours = (Date.now() / 1000 - made) / 3600;
  const ago = hours < 1 ? "within the last hour" : hours < 48 ? `${plural(Math.floor(hours), "hour")} ago` : `${plural(Math.floor(hours / 24), "day")} ago`;
  if (hours >= 0) byId("age").textContent = `, ${ago}`;
  if (hours >= 48) {
    byId("stale").textContent = `This report was made ${ago}. Times left are as of then; if newer ones are missing, nobody is watching.`;
    byId("stale").hidden = false;
  }

  byId("tools").hidden = false;
  byId("frame").hidden = false;
  read();
})();
