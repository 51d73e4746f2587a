// Sends what a form holds to this server and shows what it answers. Paths are relative to the page.
"use strict";

const LONGEST = 100000; // characters of an answer that are shown

async function send(form) {
  const output = form.querySelector("output");
  let path = form.dataset.path.slice(1);
  const headers = {};
  for (const input of form.querySelectorAll("input")) {
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value) headers[input.name] = input.value;
  }
  const body = form.elements.namedItem("body");
  if (body) headers["content-type"] = "application/json";
  output.textContent = "…";
  try {
    const answer = await fetch(path, { method: form.dataset.method, headers, body: body ? body.value : undefined });
    const text = await answer.text();
    const more = text.length > LONGEST ? `\n… ${text.length - LONGEST} more characters` : "";
    const id = answer.headers.get("x-request-id");
    output.textContent = `${answer.status} ${answer.statusText}, request ${id}\n${text.slice(0, LONGEST)}${more}`;
  } catch (error) {
    output.textContent = String(error);
  }
}

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form);
  });
}
