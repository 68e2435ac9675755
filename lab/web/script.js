// SPDX-License-Identifier: GPL-2.0-only
// Nothing here is needed to read the page: filters, and drawers that close where one was.
"use strict";
(function () {
	var forms = document.querySelectorAll("form.filters");

	function filter(form) {
		var table = document.getElementById(form.dataset.table);
		var fields = form.querySelectorAll("select, input");
		var shown = 0;

		table.querySelectorAll("tbody tr").forEach(function (row) {
			var fits = Array.prototype.every.call(fields, function (field) {
				var wanted = field.value.toLowerCase().trim();

				if (!wanted)
					return true;
				if (field.name === "text")
					return row.textContent.toLowerCase().indexOf(wanted) >= 0;
				return row.dataset[field.name].toLowerCase().split("|").indexOf(wanted) >= 0;
			});

			row.hidden = !fits;
			shown += fits;
		});
		form.querySelector("output").textContent = shown + " shown";
	}

	forms.forEach(function (form) {
		form.hidden = false;
		form.addEventListener("input", function () { filter(form); });
		form.addEventListener("submit", function (event) { event.preventDefault(); });
		filter(form);
	});

	// Leave a drawer without a jump to where its link leads.
	function leave(event) {
		var y = window.scrollY;

		event.preventDefault();
		location.hash = "#top";
		window.scrollTo(0, y);
		history.replaceState(null, "", location.pathname + location.search);
	}

	document.querySelectorAll(".drawer .close").forEach(function (link) {
		link.addEventListener("click", leave);
	});
	document.addEventListener("keydown", function (event) {
		if (event.key === "Escape" && document.querySelector(".drawer:target"))
			leave(event);
	});

	// What is folded up shows when a link leads into it.
	function unfold() {
		var place = location.hash.length > 1 && document.getElementById(location.hash.slice(1));

		for (var e = place; e; e = e.parentElement) {
			if (e.tagName === "DETAILS")
				e.open = true;
			if (e.hidden)
				e.hidden = false;
		}
		if (place && !place.classList.contains("drawer"))
			place.scrollIntoView();
	}

	window.addEventListener("hashchange", unfold);
	unfold();
	window.addEventListener("beforeprint", function () {
		document.querySelectorAll("details.paper").forEach(function (e) { e.open = true; });
	});
}());
