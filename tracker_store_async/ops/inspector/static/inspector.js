"use strict";

// The page works without this: it adds the switch between light and dark, the state
// beside the timeline without loading the page again, and the live tail.

(() => {
  const MOST_ITEMS = 2000; // what is shown of a conversation that is followed for hours
  const POLL_MS = 1000;
  const LONGEST_POLL_MS = 30000;

  // -- light and dark: this part runs before anything is drawn -----------------------

  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");

  function rememberedTheme() {
    try {
      return localStorage.getItem("tracker-store-theme");
    } catch {
      return null; // a browser may keep nothing
    }
  }

  function remember(theme) {
    try {
      localStorage.setItem("tracker-store-theme", theme);
    } catch {
      // it is chosen anew on each page, then
    }
  }

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
  }

  const remembered = rememberedTheme();
  if (remembered === "dark" || remembered === "light") {
    root.dataset.theme = remembered;
  }

  function setUpTheme() {
    const button = document.getElementById("theme");
    const name = () => {
      button.textContent = isDark() ? "Light" : "Dark";
    };
    button.hidden = false;
    name();
    prefersDark.addEventListener("change", name);
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember(root.dataset.theme);
      name();
    });
  }

  // -- the state at an event ---------------------------------------------------------

  async function ask(link) {
    const answer = await fetch(link, { headers: { accept: "application/json" } });
    if (answer.status === 401) {
      location.reload(); // which leads to the form
      return null;
    }
    if (answer.status === 204) {
      return {};
    }
    const told = await answer.json();
    if (!answer.ok) {
      const error = new Error(told.error || `error ${answer.status}`);
      error.isFinal = answer.status < 500;
      throw error;
    }
    return told;
  }

  function showState(panel, html) {
    // The server has escaped everything in it; scripts in it would not run anyway.
    panel.innerHTML = html;
  }

  function setUpState(events, panel) {
    events.addEventListener("click", async (click) => {
      const link = click.target.closest("a[data-at]");
      if (!link || click.ctrlKey || click.metaKey || click.shiftKey || click.button) {
        return;
      }
      click.preventDefault();
      try {
        const told = await ask(`${events.dataset.state}&at=${link.dataset.at}`);
        if (!told) {
          return;
        }
        showState(panel, told.state);
        panel.dataset.selected = "yes";
        for (const marked of events.querySelectorAll("[aria-current]")) {
          marked.removeAttribute("aria-current");
        }
        link.closest("li").setAttribute("aria-current", "true");
        history.replaceState(null, "", link.href);
        if (getComputedStyle(panel).position !== "sticky") {
          panel.scrollIntoView({ block: "nearest" });
        }
      } catch {
        location.assign(link.href); // the page says what is wrong
      }
    });
  }

  // -- the live tail -----------------------------------------------------------------

  function isAtEnd() {
    return innerHeight + scrollY >= document.body.scrollHeight - 80;
  }

  function add(events, panel, told) {
    const follow = isAtEnd();
    const count = told.next - events.dataset.after;
    // for who does not see them come
    document.getElementById("news").textContent =
      count === 1 ? "1 new event" : `${count} new events`;
    events.insertAdjacentHTML("beforeend", told.html);
    events.dataset.after = told.next;
    while (events.children.length > MOST_ITEMS) {
      events.firstElementChild.remove();
    }
    if (!panel.dataset.selected) {
      showState(panel, told.state);
    }
    for (const [name, value] of Object.entries(told.facts)) {
      const fact = document.querySelector(`[data-fact="${name}"] bdi`);
      if (fact) {
        fact.textContent = value;
      }
    }
    const end = document.querySelector("[data-shown-end]");
    if (end) {
      end.textContent = (told.next - 1).toLocaleString("en");
    }
    if (follow) {
      scrollTo({ top: document.body.scrollHeight });
    }
  }

  function setUpTail(events, panel) {
    const box = document.querySelector(".live");
    if (!box || !events.dataset.tail) {
      return;
    }
    const status = document.getElementById("live-status");
    const button = document.getElementById("live");
    let timer = 0;
    let wait = POLL_MS;
    let isOn = true;
    let isAsking = false;

    function say(text, mood) {
      if (status.textContent !== text) {
        status.textContent = text;
      }
      box.dataset.mood = mood;
    }

    function stop(text) {
      isOn = false;
      button.hidden = true;
      say(text, "over");
    }

    async function look() {
      isAsking = true;
      try {
        const told = await ask(`${events.dataset.tail}&after=${events.dataset.after}`);
        wait = POLL_MS;
        if (told && told.rewritten) {
          stop("This conversation was rewritten: load the page again");
        } else if (isOn) {
          say("Live", "on");
        }
        if (told && told.html) {
          add(events, panel, told);
          wait = told.is_last ? POLL_MS : 0;
        }
      } catch (error) {
        if (error.isFinal) {
          stop("This conversation is gone");
        } else if (isOn) {
          wait = Math.min(LONGEST_POLL_MS, Math.max(POLL_MS, wait) * 2);
          say("Not reachable, trying again", "away");
        }
      }
      isAsking = false;
      plan();
    }

    function plan() {
      clearTimeout(timer);
      if (isOn && !isAsking && !document.hidden) {
        timer = setTimeout(look, wait);
      }
    }

    button.addEventListener("click", () => {
      isOn = !isOn;
      button.textContent = isOn ? "Pause" : "Go on";
      say(isOn ? "Live" : "Paused", isOn ? "on" : "paused");
      plan();
    });
    document.addEventListener("visibilitychange", plan);
    box.hidden = false;
    box.dataset.mood = "on";
    plan();
  }

  document.addEventListener("DOMContentLoaded", () => {
    setUpTheme();
    const events = document.getElementById("events");
    const panel = document.getElementById("state");
    if (events && panel) {
      setUpState(events, panel);
      setUpTail(events, panel);
      if (events.dataset.tail && !location.hash && !panel.dataset.selected) {
        scrollTo({ top: document.body.scrollHeight });
      }
    }
  });
})();
