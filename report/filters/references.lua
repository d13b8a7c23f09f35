-- Cross-references: @fig:name, @tbl:name, @eq:name and @sec:name become "Figure 3", with a link.
--
-- A label stands where Pandoc expects an identifier, {#fig:name}; that of an equation follows it: $$ ... $$ {#eq:name}.
-- Typst and LaTeX number for themselves and get their own references. HTML does not, so it gets the numbers from here.
-- Must run before citeproc, which would take @fig:name for a citation.

local WORD = { fig = "Figure", tbl = "Table", eq = "Equation", sec = "Section" }

local prefix = "" -- of every number; the templates put it before those that Typst and LaTeX count
local count = { fig = 0, tbl = 0, eq = 0 }
local level = {} -- section numbers by depth
local number = {} -- label -> "3" or "2.1"; false for a section without a number
local title = {} -- label -> the section's title

local function kind(label)
  local prefix = label:match("^(%l+):")
  return prefix and WORD[prefix] and prefix
end

local function raw(text)
  return pandoc.RawInline(FORMAT, text)
end

-- Numbers the next figure, table or equation; `label` may be empty.
local function step(what, label)
  count[what] = count[what] + 1
  number[label] = prefix .. count[what]
  return WORD[what] .. " " .. number[label]
end

local function numbered_caption(what, element)
  local name = step(what, element.identifier)
  if FORMAT == "html5" and #element.caption.long > 0 then
    element.caption.long[1].content:insert(1, pandoc.Strong(name .. ". "))
    element.caption.long[1].content:insert(2, pandoc.Space())
  end
  return element
end

local function section(header)
  if header.classes:includes("unnumbered") then
    number[header.identifier] = false
  else
    level[header.level] = (level[header.level] or 0) + 1
    for deeper = header.level + 1, 6 do
      level[deeper] = 0
    end
    number[header.identifier] = prefix .. table.concat(level, ".", 1, header.level)
  end
  title[header.identifier] = header.content
end

-- A displayed equation with its label, as each format writes a numbered equation.
local function equation(math, label)
  local name = step("eq", label)
  if FORMAT == "latex" then
    return { raw("\\begin{equation}\\label{" .. label .. "}" .. math.text .. "\\end{equation}") }
  elseif FORMAT == "typst" then
    local body = pandoc.write(pandoc.Pandoc({ pandoc.Plain({ math }) }), "typst"):gsub("%s+$", "")
    return { raw('#math.equation(block: true, numbering: "(' .. prefix .. '1)", ' .. body .. ") <" .. label .. ">") }
  end
  return { pandoc.Span({ math, pandoc.Span("(" .. number[label] .. ")", { class = "number" }) }, { id = label, class = "equation" }) }
end

local function equations(inlines)
  local out, i = pandoc.List(), 1
  while i <= #inlines do
    local space, mark = inlines[i + 1], inlines[i + 2]
    local spaced = space and (space.t == "Space" or space.t == "SoftBreak")
    local label = spaced and mark and mark.t == "Str" and mark.text:match("^{#(eq:[%w_:-]+)}$")
    if label and inlines[i].t == "Math" and inlines[i].mathtype == "DisplayMath" then
      out:extend(equation(inlines[i], label))
      i = i + 3
    else
      out:insert(inlines[i])
      i = i + 1
    end
  end
  return out
end

local function reference(label)
  if number[label] == nil then
    error("the reference @" .. label .. " leads nowhere")
  elseif number[label] == false then
    return pandoc.Link(title[label], "#" .. label)
  elseif FORMAT == "typst" then
    return raw("#ref(<" .. label .. ">)")
  elseif FORMAT == "latex" then
    return raw("\\hyperref[" .. label .. "]{" .. WORD[kind(label)] .. "~\\ref*{" .. label .. "}}")
  end
  return pandoc.Link(WORD[kind(label)] .. " " .. number[label], "#" .. label, "", { class = "reference" })
end

local function cite(element)
  local out = pandoc.List()
  for i, citation in ipairs(element.citations) do
    if not kind(citation.id) then
      return nil
    end
    if i > 1 then
      out:insert(pandoc.Str(i == #element.citations and " and " or ", "))
    end
    out:insert(reference(citation.id))
  end
  return out
end

-- supplement#claim:A1 leads to another document: to its place in HTML, to its beginning elsewhere.
local ENDING = { html5 = ".html", typst = ".pdf", latex = ".pdf" }

local function elsewhere(link)
  local document, place = link.target:match("^(supplement)(#.*)$")
  if document then
    link.target = document .. ENDING[FORMAT] .. (FORMAT == "html5" and place or "")
    return link
  end
end

function Pandoc(doc)
  prefix = doc.meta.prefix and pandoc.utils.stringify(doc.meta.prefix) or ""
  doc = doc:walk({
    traverse = "topdown",
    Header = section,
    Figure = function(element) return numbered_caption("fig", element) end,
    Table = function(element) return #element.caption.long > 0 and numbered_caption("tbl", element) or nil end,
    Inlines = equations,
  })
  return doc:walk({ Cite = cite, Link = elsewhere })
end
